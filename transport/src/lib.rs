//! Links between nodes: the contract.
