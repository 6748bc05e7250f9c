//! What is run together: single examples, or packs of several that fill the context.
//!
//! A batch is sequences one after the other with their bounds, and attention does not look across them. So packing changes
//! neither positions nor losses: it only fills batches with the same number of tokens.

use twox_hash::XxHash3_128;

use super::{Example, Examples};
use crate::Error;

/// Examples in the units that batches are counted in.
#[derive(Clone, Debug)]
pub struct Data {
    examples: Examples,
    packs: Option<Packs>,
}

/// Examples of each pack, one pack after the other, and where packs end.
#[derive(Clone, Debug)]
struct Packs {
    members: Vec<u32>,
    ends: Vec<usize>,
    context: usize,
}

impl Data {
    /// Each example is a unit.
    pub fn plain(examples: Examples) -> Self {
        Self { examples, packs: None }
    }

    /// Units are packs of at most `context` tokens: from the longest example on, each goes into the first pack that has room.
    pub fn packed(examples: Examples, context: usize) -> Self {
        let lengths: Vec<usize> = (0..examples.len()).map(|index| examples.length(index)).collect();
        let packs = first_fit(&lengths, context.max(1));
        let (mut members, mut ends) = (Vec::with_capacity(lengths.len()), Vec::with_capacity(packs.len()));
        for pack in packs {
            members.extend(pack);
            ends.push(members.len());
        }
        Self { examples, packs: Some(Packs { members, ends, context }) }
    }

    /// The examples.
    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    /// Number of units.
    pub fn units(&self) -> usize {
        self.packs.as_ref().map_or(self.examples.len(), |packs| packs.ends.len())
    }

    /// Which examples unit `index` has.
    pub fn members(&self, index: usize) -> Vec<usize> {
        let Some(packs) = &self.packs else { return vec![index] };
        let start = index.checked_sub(1).and_then(|before| packs.ends.get(before)).copied().unwrap_or(0);
        let members = packs.ends.get(index).and_then(|end| packs.members.get(start..*end));
        members.unwrap_or_default().iter().map(|member| *member as usize).collect()
    }

    /// The examples of unit `index`.
    pub fn unit(&self, index: usize) -> Result<Vec<Example>, Error> {
        self.members(index).into_iter().map(|member| self.examples.get(member)).collect()
    }

    /// How full packs are, from 0 to 1; `None` without packing.
    pub fn fill(&self) -> Option<f64> {
        let packs = self.packs.as_ref().filter(|packs| !packs.ends.is_empty())?;
        Some(self.examples.tokens() as f64 / (packs.ends.len() * packs.context) as f64)
    }

    /// A hash of all tokens, labels and units.
    pub fn fingerprint(&self) -> u128 {
        let Some(packs) = &self.packs else { return self.examples.fingerprint() };
        let mut hash = XxHash3_128::new();
        hash.write(&self.examples.fingerprint().to_le_bytes());
        packs.members.iter().for_each(|member| hash.write(&member.to_le_bytes()));
        packs.ends.iter().for_each(|end| hash.write(&(*end as u64).to_le_bytes()));
        hash.finish_128()
    }
}

/// First fit in the order of falling lengths, by a tree of the room that is left in packs.
fn first_fit(lengths: &[usize], context: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index as usize]));
    let leaves = lengths.len().next_power_of_two().max(1);
    let mut room = vec![context; 2 * leaves];
    let mut packs: Vec<Vec<u32>> = Vec::new();
    for index in order {
        let need = lengths[index as usize].min(context);
        let mut at = 1;
        while at < leaves {
            at = if room[2 * at] >= need { 2 * at } else { 2 * at + 1 };
        }
        let pack = at - leaves;
        if pack == packs.len() {
            packs.push(Vec::new());
        }
        packs[pack].push(index);
        room[at] -= need;
        while at > 1 {
            at /= 2;
            room[at] = room[2 * at].max(room[2 * at + 1]);
        }
    }
    packs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn packs_hold_every_example_once_and_no_more_than_the_context() {
        let lengths: Vec<usize> = (0..500).map(|i| (i * 7919) % 97 + 1).collect();
        let packs = first_fit(&lengths, 128);
        let mut all: Vec<u32> = packs.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
        let sum = |pack: &Vec<u32>| pack.iter().map(|i| lengths[*i as usize]).sum::<usize>();
        assert!(packs.iter().all(|pack| sum(pack) <= 128));
        // Every pack but the last could not hold the first of any later one: that is first fit.
        for (at, pack) in packs.iter().enumerate() {
            assert!(packs[at + 1..].iter().all(|later| sum(pack) + lengths[later[0] as usize] > 128));
        }
        let needed = lengths.iter().sum::<usize>().div_ceil(128);
        assert!(packs.len() <= needed + needed / 50 + 1, "{} packs, {needed} needed", packs.len());
    }

    #[test]
    fn units_are_examples_or_packs() {
        let example = |length: u32| Example { tokens: vec![1; length as usize], labels: vec![1; length as usize] };
        let examples: Examples = [3, 5, 2, 4].into_iter().map(example).collect();
        let plain = Data::plain(examples.clone());
        assert_eq!((plain.units(), plain.members(2), plain.fill()), (4, vec![2], None));
        let packed = Data::packed(examples, 7);
        assert_eq!((0..packed.units()).map(|i| packed.members(i)).collect::<Vec<_>>(), [vec![1, 2], vec![3, 0]]);
        assert_eq!(packed.fill(), Some(1.0));
        assert_eq!(packed.unit(0).unwrap().iter().map(|e| e.tokens.len()).collect::<Vec<_>>(), [5, 2]);
        assert_ne!(packed.fingerprint(), plain.fingerprint());
        assert!(packed.members(2).is_empty());
    }
}
