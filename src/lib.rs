//! Runs AI agents the way Erlang runs processes: supervised, isolated, observable.
