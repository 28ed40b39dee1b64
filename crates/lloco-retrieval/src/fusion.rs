use crate::Hit;
use crate::topk::best;
use std::collections::HashMap;

/// Added to every rank: the lower it is, the more the first ranks count. 60 as published.
const RANK_OFFSET: f32 = 60.0;

/// Reciprocal-rank fusion: joins rankings whose scores do not compare.
///
/// The n-th hit of a ranking, counted from 1, scores 1 / (60 + n); a key's scores over all
/// rankings add up. Returns the best `k`.
///
/// ```
/// use lloco_retrieval::{Hit, reciprocal_rank_fusion};
///
/// let dense = vec![Hit { key: 1, score: 0.9 }, Hit { key: 2, score: 0.8 }];
/// let bm25 = vec![Hit { key: 2, score: 14.0 }, Hit { key: 3, score: 11.0 }];
/// let fused = reciprocal_rank_fusion(&[dense, bm25], 2);
/// assert_eq!(fused[0].key, 2);
/// assert_eq!(fused[1].key, 1);
/// ```
pub fn reciprocal_rank_fusion(rankings: &[Vec<Hit>], k: usize) -> Vec<Hit> {
    let mut scores: HashMap<u64, f32> = HashMap::new();
    for ranking in rankings {
        for (rank, hit) in ranking.iter().enumerate() {
            *scores.entry(hit.key).or_default() += 1.0 / (RANK_OFFSET + 1.0 + rank as f32);
        }
    }
    best(scores.into_iter().map(|(key, score)| Hit { key, score }), k)
}

/// Documents ranked by their best passage: `document` tells which one a passage belongs to.
///
/// ```
/// use lloco_retrieval::{Hit, rank_documents};
///
/// // Passages 10 to 19 belong to document 1, 20 to 29 to document 2.
/// let passages = [(21, 0.9), (10, 0.7), (20, 0.6)].map(|(key, score)| Hit { key, score });
/// let documents = rank_documents(&passages, 5, |passage| passage / 10);
/// assert_eq!(documents, [Hit { key: 2, score: 0.9 }, Hit { key: 1, score: 0.7 }]);
/// ```
pub fn rank_documents(passages: &[Hit], k: usize, document: impl Fn(u64) -> u64) -> Vec<Hit> {
    let mut scores: HashMap<u64, f32> = HashMap::new();
    for passage in passages {
        let score = scores.entry(document(passage.key)).or_insert(f32::NEG_INFINITY);
        *score = score.max(passage.score);
    }
    best(scores.into_iter().map(|(key, score)| Hit { key, score }), k)
}
