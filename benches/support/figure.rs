//! A figure: what was measured of ours and, in the same run, of its peers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::quantile::{Quantiles, Samples, Unit};

/// What a figure should reach. Nothing fails by it unless `--strict` says so: machines differ, and the table says which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    /// At most so many times the first peer's cost.
    Ratio(f64),
    /// The same, and what all but the worst hundredth reach as well.
    Ratios { p50: f64, p99: f64 },
    /// At most so much more than the first peer.
    Beyond(f64),
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// At least this, and more than the first peer.
    Ahead(f64),
    /// The figure is there to be known.
    None,
}

/// One line of the table, and one entry of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) aim: Aim,
    pub(crate) ours: Quantiles,
    /// The first one is what the aim and the comparison go by.
    pub(crate) peers: Vec<Peer>,
}

/// Something else that does the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) quantiles: Quantiles,
    /// How many times its cost ours is.
    pub(crate) ratio: f64,
    /// The same of what all but the worst hundredth reach.
    pub(crate) tail_ratio: f64,
}

impl Figure {
    pub(crate) fn new(name: &str, aim: Aim, ours: &Samples) -> Self {
        let (name, unit) = (name.to_owned(), ours.unit());
        Self { name, unit, aim, ours: ours.quantiles(), peers: Vec::new() }
    }

    pub(crate) fn beside(mut self, name: &str, samples: &Samples) -> Self {
        assert_eq!(samples.unit(), self.unit, "a peer is measured in the same unit");
        let quantiles = samples.quantiles();
        let ratio = self.unit.cost(self.ours.p50, quantiles.p50);
        let tail_ratio = self.unit.cost(self.ours.p99, quantiles.p99);
        self.peers.push(Peer { name: name.to_owned(), quantiles, ratio, tail_ratio });
        self
    }

    /// Whether the aim is reached, by the median unless it says more; nothing if there is none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ours = self.ours.p50;
        let peer = self.peers.first();
        match self.aim {
            Aim::None => None,
            Aim::Ratio(limit) => peer.map(|peer| peer.ratio <= limit),
            Aim::Ratios { p50, p99 } => {
                peer.map(|peer| peer.ratio <= p50 && peer.tail_ratio <= p99)
            }
            Aim::Beyond(limit) => peer.map(|peer| ours - peer.quantiles.p50 <= limit),
            Aim::AtMost(limit) => Some(ours <= limit),
            Aim::AtLeast(limit) => Some(ours >= limit),
            Aim::Ahead(limit) => peer.map(|peer| ours >= limit && peer.ratio < 1.0),
        }
    }

    /// The aim for people.
    pub(crate) fn aim(&self) -> String {
        match self.aim {
            Aim::None => String::new(),
            Aim::Ratio(limit) => format!("≤ {limit} × peer"),
            Aim::Ratios { p50, p99 } => format!("≤ {p50} × peer, p99 ≤ {p99} ×"),
            Aim::Beyond(limit) => format!("≤ peer + {}", self.unit.show(limit)),
            Aim::AtMost(limit) => format!("≤ {}", self.unit.show(limit)),
            Aim::AtLeast(limit) => format!("≥ {}", self.unit.show(limit)),
            Aim::Ahead(limit) => format!("≥ {}, ahead of peer", self.unit.show(limit)),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
