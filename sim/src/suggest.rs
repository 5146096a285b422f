//! What somebody who mistyped may have meant.

/// The candidate with the fewest typing errors to `word`, if they are few.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let allowed = (word.len() / 3).max(1);
    candidates.into_iter().map(|c| (distance(c), c)).filter(|(d, _)| *d <= allowed).min().map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let words = ["nodes", "dials"];
        assert_eq!(nearest("noeds", words), Some("nodes"));
        assert_eq!(nearest("dial", words), Some("dials"));
        assert_eq!(nearest("loss", words), None);
    }
}
