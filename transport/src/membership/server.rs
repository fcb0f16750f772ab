//! The membership's actor.
