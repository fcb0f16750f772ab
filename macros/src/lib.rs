//! Sugar over the public traits of neuroflow.
