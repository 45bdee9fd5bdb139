//! The one way this crate ties an enum to the words that people, logs and documents use for it.

/// Defines a fieldless enum whose variants each have one stable word.
///
/// Generates `ALL`, `as_str`, `Display` and `FromStr`; the error of the latter is
/// [`UnknownWord`], which carries the words that would have been understood.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $word:literal, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$vmeta])* $variant, )+ }

        impl $name {
            /// Every value, in the order of definition.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The stable word for this value.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err($crate::UnknownWord {
                        word: word.to_owned(),
                        expected: &[$( $word, )+],
                    }),
                }
            }
        }
    };
}
pub(crate) use words;

/// A word that none of an enum's values has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {word:?}: expected one of {}", expected.join(", "))]
pub struct UnknownWord {
    /// What was read.
    pub word: String,
    /// Every word that would have been understood.
    pub expected: &'static [&'static str],
}

#[cfg(test)]
mod tests {
    use crate::{AppProto, FaultKind, Kind, Reason};

    #[test]
    fn every_word_reads_back_as_its_own_value() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>().as_ref(), Ok(reason));
        }
        for kind in FaultKind::ALL {
            assert_eq!(kind.as_str().parse::<FaultKind>().as_ref(), Ok(kind));
        }
        for proto in AppProto::ALL {
            assert_eq!(proto.as_str().parse::<AppProto>().as_ref(), Ok(proto));
        }
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().as_ref(), Ok(kind));
        }
    }

    #[test]
    fn an_unknown_word_lists_what_was_expected() {
        let error = "tsl".parse::<Kind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown word \"tsl\": expected one of tls, ssh, http"
        );
    }
}
