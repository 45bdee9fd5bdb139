//! What TCP options an undecided segment may still carry when it gets here.
//!
//! The ruleset has overwritten what is no part of plain TCP, but nftables finds the first option
//! of a kind and no other: a second copy would reach the server behind it, multipath TCP
//! included. So the rest is read here, where nothing but plain TCP, each kind once, is accepted.

use crate::flow::Side;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Whether `options` are those of plain TCP: every kind known, of its own length, in its place
/// and there once, and nothing but zeros after the end (RFC 9293, section 3.1; RFC 2018;
/// RFC 7323). A client's selective acknowledgements are not: the ruleset takes them out.
pub(crate) fn are_plain(options: &[u8], side: Side, is_syn: bool) -> bool {
    let mut rest = options;
    let mut seen = [false; 9];
    while let Some((&kind, after)) = rest.split_first() {
        match kind {
            END => return after.iter().all(|&byte| byte == 0),
            NO_OPERATION => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let Some(&length) = after.first() else {
            return false;
        };
        let fits = match (kind, length) {
            (MAXIMUM_SEGMENT_SIZE, 4) | (WINDOW_SCALE, 3) | (SACK_PERMITTED, 2) => is_syn,
            // One to four blocks of eight bytes.
            (SACK, 10 | 18 | 26 | 34) => side == Side::Server && !is_syn,
            (TIMESTAMPS, 10) => true,
            _ => false,
        };
        let again = seen
            .get_mut(usize::from(kind))
            .is_none_or(|seen| std::mem::replace(seen, true));
        let Some(next) = rest.get(usize::from(length)..).filter(|_| fits && !again) else {
            return false;
        };
        rest = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: [u8; 4] = [2, 4, 5, 180];
    const TIMES: [u8; 10] = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

    #[test]
    fn what_kernels_send_is_plain() {
        let syn = [&MSS[..], &[4, 2], &TIMES, &[1, 3, 3, 7]].concat();
        assert!(are_plain(&syn, Side::Client, true));
        assert!(are_plain(&syn, Side::Server, true));
        let segment = [&[1, 1][..], &TIMES].concat();
        assert!(are_plain(&segment, Side::Client, false));
        assert!(are_plain(&[], Side::Client, false));
        // An end of options in front of zeros, and an option that was overwritten.
        assert!(are_plain(&[2, 4, 5, 180, 0, 0, 0, 0], Side::Client, true));
        assert!(are_plain(&[1; 40], Side::Client, false));
        let blocks = [&[1, 1][..], &TIMES, &[1, 1, 5, 10], &[7; 8]].concat();
        assert!(are_plain(&blocks, Side::Server, false));
    }

    #[test]
    fn a_second_copy_is_not_plain() {
        let sizes = [MSS, MSS].concat();
        let times = [TIMES, TIMES].concat();
        for options in [&sizes[..], &times, &[3, 3, 7, 3, 3, 7], &[4, 2, 4, 2]] {
            assert!(!are_plain(options, Side::Client, true), "{options:?}");
        }
    }

    #[test]
    fn what_may_carry_something_is_not_plain() {
        for options in [
            &[30, 4, 1, 1][..],
            &[34, 2],
            &[254, 4, 1, 2],
            &[8, 12, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9],
            &[5, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            &[5, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9],
            &[0, 1, 2, 3],
            &[2, 4, 5, 180],
            &[8],
            &[8, 0],
            &[8, 10, 1],
            &[6, 1],
        ] {
            assert!(!are_plain(options, Side::Client, false), "{options:?}");
        }
        assert!(!are_plain(
            &[5, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            Side::Server,
            true
        ));
    }
}
