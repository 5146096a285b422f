//! One block of ChaCha20 in its original form, written from its description in `docs/protocol.md`.

/// The 64 bytes of `block` under `key` and a nonce of zero.
pub(crate) fn block(key: &[u8; 32], block: u64) -> [u8; 64] {
    let mut state = [0_u32; 16];
    state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    for (word, bytes) in state[4..12].iter_mut().zip(key.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().unwrap());
    }
    state[12] = u32::try_from(block & 0xffff_ffff).unwrap();
    state[13] = u32::try_from(block >> 32).unwrap();
    let mut mixed = state;
    for _ in 0..10 {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter_round(&mut mixed, a, b, c, d);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter_round(&mut mixed, a, b, c, d);
        }
    }
    let mut bytes = [0; 64];
    for ((out, mixed), word) in bytes.chunks_exact_mut(4).zip(mixed).zip(state) {
        out.copy_from_slice(&mixed.wrapping_add(word).to_le_bytes());
    }
    bytes
}

fn quarter_round(state: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (x, y, z, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[x] = state[x].wrapping_add(state[y]);
        state[z] = (state[z] ^ state[x]).rotate_left(by);
    }
}

#[test]
fn the_first_block_of_the_zero_key() {
    // RFC 8439, appendix A.1, test vectors 1 and 2.
    assert_eq!(block(&[0; 32], 0)[..8], [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    assert_eq!(block(&[0; 32], 1)[..8], [0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a]);
}
