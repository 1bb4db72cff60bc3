//! The words of a search in texts: a text matches if each of them occurs in it, in any order and any case, also inside of
//! longer words.

use std::str::FromStr;

use super::limits::SEARCH_WORDS;

/// Words to look for: at least one, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchWords(Vec<String>);

/// Why a text names no words to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SearchWordsError {
    /// There are none.
    #[error("must have a word to look for")]
    Empty,
    /// There are too many.
    #[error("must have at most {SEARCH_WORDS} words")]
    TooMany,
}

impl SearchWords {
    /// Each word once.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether all of them occur in a text.
    #[must_use]
    pub fn all_occur_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.0.iter().all(|word| text.contains(word))
    }

    /// Whether one of them occurs in a text.
    #[must_use]
    pub fn any_occurs_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.0.iter().any(|word| text.contains(word))
    }
}

impl FromStr for SearchWords {
    type Err = SearchWordsError;

    fn from_str(text: &str) -> Result<Self, SearchWordsError> {
        let mut words: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let word = word.to_lowercase();
            if words.contains(&word) {
                continue;
            }
            if words.len() == SEARCH_WORDS {
                return Err(SearchWordsError::TooMany);
            }
            words.push(word);
        }
        if words.is_empty() { Err(SearchWordsError::Empty) } else { Ok(Self(words)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_order_and_case() {
        let words: SearchWords = " Tea\tWITH  tea Milk ".parse().expect("words");
        assert_eq!(words.as_slice(), ["tea", "with", "milk"]);
        for (text, all, any) in [
            ("Milk: with it goes TEA", true, true),
            ("buttermilk withered in the steam, tea-like", true, true),
            ("tea and milk", false, true),
            ("coffee", false, false),
        ] {
            assert_eq!((words.all_occur_in(text), words.any_occurs_in(text)), (all, any), "{text}");
        }
    }

    #[test]
    fn no_words_and_too_many_are_refused() {
        assert_eq!(" \n".parse::<SearchWords>(), Err(SearchWordsError::Empty));
        let many: Vec<String> = (0..=SEARCH_WORDS).map(|number| number.to_string()).collect();
        assert_eq!(many.join(" ").parse::<SearchWords>(), Err(SearchWordsError::TooMany));
        assert!(many[1..].join(" ").parse::<SearchWords>().is_ok());
        assert!("same ".repeat(10_000).parse::<SearchWords>().is_ok(), "a word counts once");
    }
}
