//! The mask over what a client sends (RFC 6455 section 5.3).

/// Takes the mask off (or puts it on) in place. `payload` starts where `mask` does.
pub(super) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Words of eight bytes are what the compiler turns into vector instructions.
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_meets_its_key(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            mask in any::<[u8; 4]>(),
        ) {
            let mut masked = payload.clone();
            apply_mask(&mut masked, mask);
            for (at, byte) in masked.iter().enumerate() {
                prop_assert_eq!(*byte, payload[at] ^ mask[at % 4]);
            }
        }
    }
}
