//! What a channel may be called.
//!
//! A name is 1 to 128 ASCII letters, digits, `-`, `_` and `.`, and begins with a letter or a digit. So it needs no
//! escaping in a URL, a topic name, a file name or a shell, and it is never `.` or `..`.

/// The longest name of a channel.
pub const CHANNEL_BYTES_MAX: usize = 128;

/// Why something is not a name for a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// There is nothing.
    #[error("the channel has no name")]
    Empty,
    /// It is too long.
    #[error("a channel's name of {bytes} bytes is over the limit of {CHANNEL_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It begins with something else than a letter or a digit.
    #[error("a channel's name begins with a letter or a digit, not with {0:?}")]
    Begins(char),
    /// It holds something else than letters, digits, `-`, `_` and `.`.
    #[error("a channel's name is made of letters, digits, `-`, `_` and `.`, not of {0:?}")]
    Character(char),
}

/// Checks the name of a channel.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_channel(name: &str) -> Result<(), ChannelNameError> {
    let Some(first) = name.chars().next() else {
        return Err(ChannelNameError::Empty);
    };
    if name.len() > CHANNEL_BYTES_MAX {
        return Err(ChannelNameError::TooLong { bytes: name.len() });
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(c) = name.chars().find(|c| !is_part(*c)) {
        return Err(ChannelNameError::Character(c));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(ChannelNameError::Begins(first));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["a", "news", "Room-1", "sensors.hall_2", "9", &"x".repeat(128)] {
            assert_eq!(check_channel(name), Ok(()), "{name}");
        }
        assert_eq!(check_channel(""), Err(ChannelNameError::Empty));
        assert_eq!(check_channel(&"x".repeat(129)), Err(ChannelNameError::TooLong { bytes: 129 }));
        for name in [".", "..", "-n", "_x"] {
            assert!(matches!(check_channel(name), Err(ChannelNameError::Begins(_))), "{name}");
        }
        for name in ["a/b", "a b", "ü", "a%2f", "a\n", "a\u{0}"] {
            assert!(matches!(check_channel(name), Err(ChannelNameError::Character(_))), "{name}");
        }
    }
}
