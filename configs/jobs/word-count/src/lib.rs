//! Counts words: `map` reads text, `reduce` merges counts. Both make lines of `word count`, sorted by word.

use std::collections::BTreeMap;

/// Room for bytes that the host writes.
#[unsafe(no_mangle)]
pub extern "C" fn omnimesh_alloc(length: u32) -> *mut u8 {
    Vec::leak(vec![0; length as usize]).as_mut_ptr()
}

/// Runs the function that the parameters name.
///
/// # Safety
/// The host gives what `omnimesh_alloc` has answered, and the lengths it has asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omnimesh_run(params: *const u8, params_len: u32, input: *const u8, input_len: u32) -> u64 {
    // SAFETY: see above.
    let (params, input) = unsafe {
        (
            std::slice::from_raw_parts(params, params_len as usize),
            std::slice::from_raw_parts(input, input_len as usize),
        )
    };
    let is_map = params.windows(5).any(|window| window == b"\"map\"");
    match count(is_map, input) {
        Ok(output) => answer(0, output),
        Err(message) => answer(1 << 63, message.into_bytes()),
    }
}

fn answer(flag: u64, bytes: Vec<u8>) -> u64 {
    let bytes = bytes.leak();
    flag | (bytes.as_ptr() as u64) << 32 | bytes.len() as u64
}

/// The work itself.
pub fn count(is_map: bool, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut words: BTreeMap<&[u8], u64> = BTreeMap::new();
    for part in parts(input)? {
        if is_map {
            for word in part.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                *words.entry(word).or_default() += 1;
            }
        } else {
            for line in part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let space = line.iter().rposition(|byte| *byte == b' ').ok_or("a line without a count")?;
                let number = std::str::from_utf8(&line[space + 1..]).ok().and_then(|text| text.parse::<u64>().ok());
                *words.entry(&line[..space]).or_default() += number.ok_or("a count that is no number")?;
            }
        }
    }
    let mut output = Vec::new();
    for (word, count) in words {
        output.extend_from_slice(word);
        output.extend_from_slice(format!(" {count}\n").as_bytes());
    }
    Ok(output)
}

/// The parts of an input, without those that are missing.
fn parts(input: &[u8]) -> Result<Vec<&[u8]>, String> {
    let short = || "the input is too short".to_owned();
    let (count, mut rest) = input.split_first_chunk::<4>().ok_or_else(short)?;
    let mut parts = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let length = u64::from_le_bytes(*length);
        rest = after;
        if length != u64::MAX {
            let length = usize::try_from(length).map_err(|_| short())?;
            let (part, after) = rest.split_at_checked(length).ok_or_else(short)?;
            parts.push(part);
            rest = after;
        }
    }
    Ok(parts)
}
