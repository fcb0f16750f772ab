//! Which node serves a key: weighted rendezvous hashing. Pure; every node comes to the same order.
//!
//! Each node draws a number from the key and its own id, and the best draw has the key. So a node that
//! goes gives its keys to the others and moves nobody else's, and one that comes takes its share alone.

use ring::digest::{Context, SHA256};

use crate::identity::NodeId;

/// The draw of a node for a key: the larger the better. A node of twice the weight wins twice as often.
///
/// It's `-weight / ln(u)`, where `u` in 0..1 is the first 53 bits of SHA-256 over the key's length as
/// eight bytes, the key, and the node's id.
pub(crate) fn draw(key: &[u8], node: &NodeId, weight: u32) -> f64 {
    let mut hash = Context::new(&SHA256);
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(node.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(hash.finish().as_ref().first_chunk::<8>().unwrap_or(&[0; 8]));
    let bits = u64::from_le_bytes(first) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / uniform.ln()
}

/// The nodes of `candidates` (with their weights) in the order in which they are to serve a key. Those
/// of weight 0 aren't among them.
pub(crate) fn order(
    key: &[u8],
    candidates: impl IntoIterator<Item = (NodeId, u32)>,
) -> Vec<NodeId> {
    let mut drawn: Vec<(f64, NodeId)> = candidates
        .into_iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(node, weight)| (draw(key, &node, weight), node))
        .collect();
    // The id decides between equal draws.
    drawn.sort_by(|(a, a_id), (b, b_id)| b.total_cmp(a).then_with(|| a_id.cmp(b_id)));
    drawn.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn nodes(weights: &[u32]) -> Vec<(NodeId, u32)> {
        let node = |at: usize| NodeId::of_public_key(&at.to_le_bytes());
        weights.iter().enumerate().map(|(at, weight)| (node(at), *weight)).collect()
    }

    #[test]
    fn weights_are_respected() {
        let nodes = nodes(&[1, 2, 3, 4, 0]);
        let mut won: HashMap<NodeId, u32> = HashMap::new();
        for key in 0..20_000_u32 {
            *won.entry(order(&key.to_le_bytes(), nodes.iter().copied())[0]).or_default() += 1;
        }
        for (node, weight) in &nodes {
            let (won, fair) = (won.get(node).copied().unwrap_or(0), weight * 2_000);
            assert!(won.abs_diff(fair) <= fair / 10, "{won} keys of weight {weight}");
        }
    }

    #[test]
    fn the_draw_is_the_one_that_the_protocol_names() {
        let node = NodeId::from([7; 32]);
        let drawn = draw(b"conversation-1", &node, 100);
        assert!((drawn - DRAWN).abs() < 1e-6, "{drawn}");
    }

    /// As another implementation computes it:
    /// `-100 / ln(((int.from_bytes(sha256(len8 + key + id)[:8], "little") >> 11) + .5) / 2**53)`.
    const DRAWN: f64 = 366.851_121_519;

    proptest! {
        #[test]
        fn a_node_that_goes_moves_its_own_keys_alone(
            weights in prop::collection::vec(1_u32..1_000, 2..20),
            gone in any::<prop::sample::Index>(),
            key in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let all = nodes(&weights);
            let gone = all[gone.index(all.len())].0;
            let before = order(&key, all.iter().copied());
            let after = order(&key, all.iter().copied().filter(|(node, _)| *node != gone));
            let expected: Vec<NodeId> = before.into_iter().filter(|node| *node != gone).collect();
            prop_assert_eq!(after, expected);
        }

        #[test]
        fn a_node_that_grows_only_gains_keys(
            weights in prop::collection::vec(1_u32..1_000, 2..20),
            grown in any::<prop::sample::Index>(),
            key in any::<[u8; 16]>(),
        ) {
            let mut all = nodes(&weights);
            let before = order(&key, all.iter().copied())[0];
            let grown = grown.index(all.len());
            all[grown].1 += 500;
            let after = order(&key, all.iter().copied())[0];
            prop_assert!(after == before || after == all[grown].0);
        }

        #[test]
        fn the_order_of_candidates_does_not_matter(
            weights in prop::collection::vec(0_u32..9, 0..20), key in any::<[u8; 8]>(),
        ) {
            let all = nodes(&weights);
            let one = order(&key, all.iter().copied());
            let other = order(&key, all.iter().rev().copied());
            prop_assert_eq!(one, other);
        }
    }
}
