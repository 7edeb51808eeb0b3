//! zstd with contexts that are made once for each thread: making one costs more than a block.

use super::wire::Damaged;
use std::cell::RefCell;
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict};

/// Level 3 takes 2 to 3 % less disk than level 1 for twice the time; packing is not on the hot path.
pub(super) const LEVEL: i32 = 3;
/// Nothing of ours is larger unpacked: a damaged length must not exhaust the memory.
const MOST_RAW_BYTES: usize = 1 << 30;

thread_local! {
    static COMPRESS: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESS: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Compresses, with the help of a dictionary if there is one. None if it does not get smaller.
pub(super) fn compress(raw: &[u8], dictionary: Option<&CDict<'_>>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(raw.len()));
    let done = COMPRESS.with_borrow_mut(|context| match dictionary {
        Some(dictionary) => context.compress_using_cdict(&mut out, raw, dictionary),
        None => context.compress(&mut out, raw, LEVEL),
    });
    out.shrink_to_fit();
    (done.is_ok() && out.len() < raw.len()).then_some(out)
}

/// Undoes [`compress`].
pub(super) fn decompress(
    packed: &[u8],
    raw_bytes: usize,
    dictionary: Option<&DDict<'_>>,
) -> Result<Vec<u8>, Damaged> {
    if raw_bytes > MOST_RAW_BYTES {
        return Err(Damaged);
    }
    let mut out = Vec::with_capacity(raw_bytes);
    let done = DECOMPRESS.with_borrow_mut(|context| match dictionary {
        Some(dictionary) => context.decompress_using_ddict(&mut out, packed, dictionary),
        None => context.decompress(&mut out, packed),
    });
    if done.is_ok() && out.len() == raw_bytes { Ok(out) } else { Err(Damaged) }
}
