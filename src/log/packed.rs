//! Reading packed folds: which blocks may hold what is wanted, and the blocks themselves.

use super::Shared;
use super::block::Block;
use super::folds::Fold;
use super::generation::{Damage, Generation, Kind, Trouble};
use super::ids;
use super::pack::{self, Directory};
use super::terms::{self, Posting, Term};
use super::walk::Wanted;
use super::wire::Damaged;
use crate::cipher::{Cipher, Keyring, MissingKey, Part};
use crate::event::{Channel, Interest, Pattern};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// More terms than this are not looked up: reading all blocks is cheaper.
const MOST_TERMS: usize = 48;
/// A prefix that more pages of terms begin with selects too much to be worth it.
const MOST_PREFIX_PAGES: usize = 12;
/// A pattern that says more than a prefix is worth more.
const MOST_PATTERN_PAGES: usize = 128;

/// A fold and where it is.
pub(super) struct PackedFold {
    pub(super) fold: Fold,
    pub(super) generation: Arc<Generation>,
    /// What it was encrypted with; none if it was not.
    pub(super) cipher: Option<Cipher>,
}

impl PackedFold {
    /// One that was read from the list of its generation.
    pub(super) fn found(
        fold: Fold,
        generation: Arc<Generation>,
        keyring: &Keyring,
    ) -> Result<Self, MissingKey> {
        let cipher = fold.lock.map(|lock| keyring.cipher(lock, Part::Fold)).transpose()?;
        Ok(Self { fold, generation, cipher })
    }

    /// Reads a value. None if it is missing, damaged, or not what was encrypted for this place.
    pub(super) fn value(&self, kind: Kind, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        let bytes = self.generation.get(self.fold.first.0, kind, number)?;
        Ok(match &self.cipher {
            None => bytes,
            Some(cipher) => {
                bytes.and_then(|bytes| cipher.open(pack::place(kind, number), &self.fold.encode(), &bytes))
            }
        })
    }

    /// The ids that publishers gave events in it, as they were noted.
    pub(super) fn ids(&self) -> Option<Result<ids::Given, Damaged>> {
        let path = self.generation.path().join(ids::file_name(self.fold.first));
        let bytes = fs::read(path).ok()?;
        Some(pack::open_ids(self.cipher.as_ref(), &self.fold, bytes).and_then(|bytes| ids::parse(&bytes)))
    }
}

/// Blocks of a fold, as bits.
#[derive(Clone)]
pub(super) struct Blocks(Vec<u64>);

impl Blocks {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// A damaged index may name a block that is not there; that is left out.
    fn add(&mut self, block: u32) {
        if let Some(word) = self.0.get_mut(block as usize / 64) {
            *word |= 1 << (block % 64);
        }
    }

    fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// Whether a block is among them.
    pub(super) fn contains(&self, block: usize) -> bool {
        self.0.get(block / 64).is_some_and(|word| word & (1 << (block % 64)) != 0)
    }
}

/// What to look up.
enum Wish<'a> {
    Exactly(Term),
    /// Channels that begin so and fit the pattern.
    Channels(Term, &'a Pattern),
}

impl Shared {
    /// What there is in a fold. None if that is damaged.
    pub(super) fn directory_of(&self, packed: &PackedFold) -> Result<Option<Arc<Directory>>, Trouble> {
        let key = (packed.generation.number, packed.fold.first.0, Kind::Directory, 0);
        if let Some(known) = self.directories.get(&key) {
            return Ok(Some(known));
        }
        let bytes = self.value_of(packed, Kind::Directory, 0)?;
        let parsed = bytes.and_then(|bytes| Directory::parse(&bytes, packed.fold.first).ok());
        let Some(directory) = parsed else {
            self.note_damage(packed, Kind::Directory, 0);
            return Ok(None);
        };
        let directory = Arc::new(directory);
        self.directories.put(key, directory.clone(), directory.footprint);
        Ok(Some(directory))
    }

    /// A block. None if it is damaged.
    pub(super) fn block_of(
        &self,
        packed: &PackedFold,
        directory: &Directory,
        number: usize,
    ) -> Result<Option<Arc<Block>>, Trouble> {
        let key = (packed.generation.number, packed.fold.first.0, Kind::Block, number as u32);
        if let Some(known) = self.blocks.get(&key) {
            return Ok(Some(known));
        }
        let bytes = self.value_of(packed, Kind::Block, number as u32)?;
        let unpacked = bytes.and_then(|bytes| Block::unpack(&bytes, directory.dictionary.as_ref()).ok());
        let Some(block) = unpacked else {
            self.note_damage(packed, Kind::Block, number as u32);
            return Ok(None);
        };
        let block = Arc::new(block);
        self.blocks.put(key, block.clone(), block.footprint());
        Ok(Some(block))
    }

    /// The blocks that may hold something wanted; none means all of them. A damaged index is no reason to
    /// miss events: then all blocks are read.
    pub(super) fn candidates(
        &self,
        packed: &PackedFold,
        directory: &Directory,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Blocks>, Trouble> {
        let mut found: Option<Blocks> = None;
        let mut narrow = |blocks: Option<Blocks>| match (&mut found, blocks) {
            (_, None) => {}
            (Some(found), Some(blocks)) => found.keep(&blocks),
            (found, Some(blocks)) => *found = Some(blocks),
        };
        if let Some(wishes) = wanted.interest.and_then(terms_of) {
            narrow(self.union(packed, directory, &wishes)?);
        }
        let filter = wanted.filter;
        if !filter.events.is_empty() && filter.events.len() <= MOST_TERMS {
            let names = filter.events.iter().map(terms::name).chain([terms::stubs()]);
            narrow(self.union(packed, directory, &names.map(Wish::Exactly).collect::<Vec<_>>())?);
        }
        for (name, value) in &filter.tags {
            let tags = [terms::tag(name, value), terms::stubs()];
            narrow(self.union(packed, directory, &tags.map(Wish::Exactly))?);
        }
        Ok(found)
    }

    /// Reads a value. On a full disk sled cannot open what is closed: then the space kept back is given up.
    fn value_of(&self, packed: &PackedFold, kind: Kind, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        let read = || packed.value(kind, number);
        let outcome = match read() {
            Err(Trouble::Full) if self.reserve.release() => read(),
            Err(Trouble::Unavailable | Trouble::Broken) if self.reserve.release_if_short() => read(),
            outcome => outcome,
        };
        match outcome {
            // Not damage: nothing is put aside because the disk is full.
            Err(Trouble::Broken) if self.reserve.is_short() => Err(Trouble::Full),
            outcome => outcome,
        }
    }

    /// How often a channel occurs in each block of a fold, in order; stubs count too. None if the index is
    /// damaged.
    pub(super) fn postings_of(
        &self,
        packed: &PackedFold,
        directory: &Directory,
        channel: &Channel,
    ) -> Result<Option<Vec<Posting>>, Trouble> {
        let term = terms::channel(channel);
        let mut found = Vec::new();
        let Some(page) = page_of(directory, &term) else { return Ok(Some(found)) };
        let Some(page) = self.page(packed, page)? else { return Ok(None) };
        let mut whole = true;
        let scanned = terms::scan(&page, |at, postings| {
            if at == &term[..] {
                whole = postings.for_each(|posting| found.push(posting)).is_ok();
            }
            at < &term[..]
        });
        Ok((whole && scanned.is_ok()).then_some(found))
    }

    /// The blocks of any of these terms. None if that cannot be told, or is not worth it.
    fn union(
        &self,
        packed: &PackedFold,
        directory: &Directory,
        wishes: &[Wish<'_>],
    ) -> Result<Option<Blocks>, Trouble> {
        let mut blocks = Blocks::none(directory.blocks.len());
        for wish in wishes {
            let told = match wish {
                Wish::Exactly(term) => self.add_term(packed, directory, term, &mut blocks)?,
                Wish::Channels(prefix, pattern) => {
                    self.add_channels(packed, directory, prefix, pattern, &mut blocks)?
                }
            };
            if !told {
                return Ok(None);
            }
        }
        Ok(Some(blocks))
    }

    /// Adds the blocks of a term. False if that cannot be told.
    fn add_term(
        &self,
        packed: &PackedFold,
        directory: &Directory,
        wanted: &[u8],
        blocks: &mut Blocks,
    ) -> Result<bool, Trouble> {
        let Some(number) = page_of(directory, wanted) else { return Ok(true) };
        let Some(page) = self.page(packed, number)? else { return Ok(false) };
        let mut whole = true;
        let scanned = terms::scan(&page, |term, postings| {
            if term == wanted {
                whole = postings.for_each(|posting| blocks.add(posting.block)).is_ok();
            }
            term < wanted
        });
        Ok(whole && scanned.is_ok())
    }

    /// Adds the blocks of all channels that fit a pattern. False if that cannot be told, or if there are so
    /// many that reading all blocks is as good.
    fn add_channels(
        &self,
        packed: &PackedFold,
        directory: &Directory,
        prefix: &[u8],
        pattern: &Pattern,
        blocks: &mut Blocks,
    ) -> Result<bool, Trouble> {
        let rest = pattern.as_str().get(prefix.len() - 1..).unwrap_or_default();
        let literals: Vec<_> = rest.split('.').filter(|token| !matches!(*token, "" | "*" | ">")).collect();
        let most = if literals.is_empty() { MOST_PREFIX_PAGES } else { MOST_PATTERN_PAGES };
        // Terms before all that begin with the prefix may still share the first page with them.
        let start = page_of(directory, prefix).unwrap_or(0);
        let begins = |page: &[u8]| page.starts_with(prefix);
        let stop = (start + 1..directory.pages.len())
            .find(|&number| !begins(&directory.pages[number]))
            .unwrap_or(directory.pages.len());
        if stop - start > most {
            return Ok(false);
        }
        for number in start..stop {
            let Some(page) = self.page(packed, number)? else { return Ok(false) };
            let mut whole = true;
            let scanned = terms::scan(&page, |term, postings| {
                let begins = term.starts_with(prefix);
                if begins && fits(term, &literals, pattern) {
                    whole &= postings.for_each(|posting| blocks.add(posting.block)).is_ok();
                }
                begins || term < prefix
            });
            if !whole || scanned.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A page of terms. None if it is damaged.
    fn page(&self, packed: &PackedFold, number: usize) -> Result<Option<Arc<Vec<u8>>>, Trouble> {
        let key = (packed.generation.number, packed.fold.first.0, Kind::Terms, number as u32);
        if let Some(known) = self.pages.get(&key) {
            return Ok(Some(known));
        }
        let Some(page) = self.value_of(packed, Kind::Terms, number as u32)? else {
            self.note_damage(packed, Kind::Terms, number as u32);
            return Ok(None);
        };
        let page = Arc::new(page);
        self.pages.put(key, page.clone(), page.len() + 64);
        Ok(Some(page))
    }

    fn note_damage(&self, packed: &PackedFold, kind: Kind, number: u32) {
        let damage = packed.generation.note_damage(packed.fold.first.0, kind, number);
        if damage != Damage::Known {
            self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        }
        // Once for each fold: a thousand damaged blocks are one piece of news.
        if damage == Damage::NewFold {
            let what = match kind {
                Kind::Block => "a block of the log",
                Kind::Directory => "the directory of a part of the log",
                Kind::Terms => "the index of a part of the log",
            };
            tracing::error!(
                path = %packed.generation.path().display(),
                first = packed.fold.first.0,
                "{what} is damaged and is passed over"
            );
        }
    }
}

/// Whether the channel of a term fits a pattern; most do not even have its literal tokens.
fn fits(term: &[u8], literals: &[&str], pattern: &Pattern) -> bool {
    let Some(text) = terms::channel_text(term) else { return false };
    literals.iter().all(|literal| text.contains(literal))
        && Channel::parse(text).is_ok_and(|channel| pattern.matches(&channel))
}

/// The page in which a term is, if it is anywhere.
fn page_of(directory: &Directory, term: &[u8]) -> Option<usize> {
    directory.pages.partition_point(|first| first[..] <= *term).checked_sub(1)
}

/// The terms that select what an interest wants, if they select enough to be worth it.
fn terms_of(interest: &Interest) -> Option<Vec<Wish<'_>>> {
    if interest.len() > MOST_TERMS {
        return None;
    }
    let mut wishes: Vec<_> = interest.channels().map(terms::channel).map(Wish::Exactly).collect();
    for pattern in interest.patterns() {
        let Pattern::Wild(wild) = pattern else { continue };
        let prefix = wild.literal_prefix();
        let tokens = wild.as_str().split('.').filter(|token| !matches!(*token, "*" | ">"));
        // The longest token is likely the rarest.
        wishes.push(match tokens.max_by_key(|token| token.len()) {
            Some(token) if prefix.is_empty() => Wish::Exactly(terms::token(token)),
            _ => Wish::Channels(terms::channel_prefix(prefix), pattern),
        });
    }
    Some(wishes)
}
