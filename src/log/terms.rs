//! The inverted index of a fold: which blocks hold events of a channel, with a name, with a tag. Terms are
//! sorted and cut into small pages, so that looking one up reads one page.

use super::block::Item;
use super::wire::{Damaged, Reader, put_varint};
use crate::event::{Channel, EventName};
use std::collections::HashMap;

/// A page is closed when it has this many bytes: it is read in whole, and fits in one value.
const PAGE_BYTES: usize = 4000;

/// The bytes of a term; its kind first, so that kinds do not mix in the order.
pub(super) type Term = Vec<u8>;

/// The term of a channel.
pub(super) fn channel(channel: &Channel) -> Term {
    channel_prefix(channel.as_str())
}

/// What the terms of all channels that begin so begin with.
pub(super) fn channel_prefix(prefix: &str) -> Term {
    [b"c", prefix.as_bytes()].concat()
}

/// The channel that a term is of.
pub(super) fn channel_text(term: &[u8]) -> Option<&str> {
    term.strip_prefix(b"c").and_then(|text| std::str::from_utf8(text).ok())
}

/// The term of a token of a channel, for patterns such as `*.x` and `*.x.*`. First tokens have none: a pattern
/// that tells the first one is looked up by it.
pub(super) fn token(token: &str) -> Term {
    [b"k", token.as_bytes()].concat()
}

/// The term of an event name.
pub(super) fn name(name: &EventName) -> Term {
    [b"e", name.as_str().as_bytes()].concat()
}

/// The term of a tag with its value; tags have no control characters.
pub(super) fn tag(name: &str, value: &str) -> Term {
    [b"g", name.as_bytes(), b"\0", value.as_bytes()].concat()
}

/// The term of all blocks that hold stubs, whose names and tags nobody knows any more.
pub(super) fn stubs() -> Term {
    b"s".to_vec()
}

/// A block in which a term occurs, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Posting {
    pub(super) block: u32,
    pub(super) count: u32,
}

/// Collects the terms of a fold.
#[derive(Default)]
pub(super) struct TermsBuilder {
    postings: HashMap<Term, Vec<Posting>, foldhash::fast::RandomState>,
    buffer: Term,
}

impl TermsBuilder {
    /// Adds what a block holds. Blocks come in order.
    pub(super) fn add(&mut self, block: u32, item: &Item<'_>) {
        let channel = item.channel().as_str();
        self.post(block, b'c', &[channel]);
        for token in channel.split('.').skip(1) {
            self.post(block, b'k', &[token]);
        }
        match item {
            Item::Stub(..) => self.post(block, b's', &[]),
            Item::Kept(event) => {
                self.post(block, b'e', &[event.name.as_str()]);
                for (name, value) in event.tags.iter() {
                    self.post(block, b'g', &[name, "\0", value]);
                }
            }
        }
    }

    fn post(&mut self, block: u32, kind: u8, parts: &[&str]) {
        self.buffer.clear();
        self.buffer.push(kind);
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part.as_bytes()));
        match self.postings.get_mut(&self.buffer) {
            Some(list) => match list.last_mut() {
                Some(last) if last.block == block => last.count += 1,
                _ => list.push(Posting { block, count: 1 }),
            },
            None => {
                self.postings.insert(self.buffer.clone(), vec![Posting { block, count: 1 }]);
            }
        }
    }

    /// The pages, each with its first term.
    pub(super) fn pages(self) -> Vec<(Term, Vec<u8>)> {
        let mut terms: Vec<_> = self.postings.into_iter().collect();
        terms.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut pages: Vec<(Term, Vec<u8>)> = Vec::new();
        let mut before: &[u8] = &[];
        for (term, postings) in &terms {
            if pages.last().is_none_or(|(_, page)| page.len() >= PAGE_BYTES) {
                pages.push((term.clone(), Vec::new()));
                before = &[];
            }
            let Some((_, page)) = pages.last_mut() else { continue };
            let shared = term.iter().zip(before).take_while(|(a, b)| a == b).count();
            put_varint(page, shared as u64);
            put_varint(page, (term.len() - shared) as u64);
            page.extend_from_slice(&term[shared..]);
            put_postings(page, postings);
            before = term;
        }
        pages
    }
}

fn put_postings(page: &mut Vec<u8>, postings: &[Posting]) {
    let mut list = Vec::new();
    let mut before = 0;
    for posting in postings {
        let step = u64::from(posting.block - before) << 1;
        put_varint(&mut list, step | u64::from(posting.count > 1));
        if posting.count > 1 {
            put_varint(&mut list, u64::from(posting.count));
        }
        before = posting.block;
    }
    put_varint(page, list.len() as u64);
    page.extend_from_slice(&list);
}

/// Goes through a page from its first term until `each` says stop (false). The postings are parsed only if
/// asked for.
pub(super) fn scan(page: &[u8], mut each: impl FnMut(&[u8], Postings<'_>) -> bool) -> Result<(), Damaged> {
    let mut reader = Reader::new(page);
    let mut term = Vec::new();
    while !reader.is_at_end() {
        let shared = reader.size()?;
        let suffix = reader.bytes()?;
        if shared > term.len() {
            return Err(Damaged);
        }
        term.truncate(shared);
        term.extend_from_slice(suffix);
        let postings = Postings(reader.bytes()?);
        if !each(&term, postings) {
            break;
        }
    }
    Ok(())
}

/// The postings of one term, still packed.
#[derive(Clone, Copy)]
pub(super) struct Postings<'a>(&'a [u8]);

impl Postings<'_> {
    /// Unpacks them.
    pub(super) fn for_each(&self, mut each: impl FnMut(Posting)) -> Result<(), Damaged> {
        let mut reader = Reader::new(self.0);
        let mut block = 0u64;
        while !reader.is_at_end() {
            let step = reader.varint()?;
            block = block.checked_add(step >> 1).ok_or(Damaged)?;
            let count = if step & 1 == 1 { reader.varint()? } else { 1 };
            each(Posting {
                block: u32::try_from(block).map_err(|_| Damaged)?,
                count: u32::try_from(count).map_err(|_| Damaged)?,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::event;
    use super::*;

    #[test]
    fn every_term_is_found_in_its_page() {
        let mut builder = TermsBuilder::default();
        for n in 0..3000u64 {
            let event = event(n + 1).channel(&format!("user.{}.x", n % 700)).tag("n", &n.to_string()).build();
            builder.add((n / 50) as u32, &Item::Kept(&event));
        }
        let pages = builder.pages();
        assert!(pages.len() > 3);
        assert!(pages.iter().all(|(_, page)| page.len() < PAGE_BYTES + 600));
        assert!(pages.is_sorted_by(|a, b| a.0 < b.0));
        let mut channels = 0;
        for (first, page) in &pages {
            let mut is_first = true;
            scan(page, |term, postings| {
                assert!(!is_first || term == &first[..]);
                is_first = false;
                if term[0] == b'c' {
                    channels += 1;
                    let mut count = 0;
                    postings.for_each(|posting| count += posting.count).unwrap();
                    assert!((4..=5).contains(&count));
                }
                true
            })
            .unwrap();
        }
        assert_eq!(channels, 700);
    }
}
