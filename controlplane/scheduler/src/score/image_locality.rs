//! ImageLocality: nodes that hold the pod's images already are better, the more so the larger the images and the more
//! nodes hold them (so that not everything lands on the one node that does).

use super::{MAX_SCORE, Prepared, Score, Scorer};
use crate::ids::NodeId;
use crate::pod::PodInfo;
use crate::snapshot::{ImageState, Node, Snapshot};

/// Below this an image is quick to pull and does not count.
const MIN_BYTES: i64 = 23 * 1024 * 1024;
/// Above this, for each image, more bytes count no more.
const MAX_BYTES: i64 = 1000 * 1024 * 1024;

pub(super) static SCORE: Score = Score { name: "ImageLocality", weight: 1, prepare };

struct Held<'a> {
    images: Vec<(&'a ImageState, i64)>,
    ceiling: i64,
}

fn prepare<'a>(snapshot: &'a Snapshot, pod: &'a PodInfo, _: &'a [NodeId]) -> Prepared<'a> {
    let nodes = snapshot.len() as f64;
    let images: Vec<_> =
        pod.images.iter().filter_map(|name| snapshot.image(name)).map(|i| (i, worth(i, nodes))).collect();
    if images.is_empty() {
        return None;
    }
    let count = i64::try_from(pod.images.len()).unwrap_or(i64::MAX);
    Some(Box::new(Held { images, ceiling: MAX_BYTES.saturating_mul(count) }))
}

/// The image's size, scaled by the share of nodes that hold it.
#[expect(clippy::cast_possible_truncation, reason = "bytes, cut as upstream cuts them")]
fn worth(image: &ImageState, nodes: f64) -> i64 {
    (image.size as f64 * (image.spread() as f64 / nodes)) as i64
}

impl Scorer for Held<'_> {
    fn score(&self, node: &Node) -> i64 {
        let held = self.images.iter().filter(|(image, _)| image.is_on(node.id()));
        let sum: i64 = held.map(|(_, worth)| worth).sum();
        MAX_SCORE * (sum.clamp(MIN_BYTES, self.ceiling) - MIN_BYTES) / (self.ceiling - MIN_BYTES)
    }
}
