use proptest::prelude::*;

use super::*;

const CAP: usize = 64;
const BASE: Seq = Seq(u32::MAX - 10);

fn stream() -> Stream {
    Stream::new(BASE)
}

#[test]
fn bytes_come_out_in_order_across_the_sequence_wrap() {
    let mut s = stream();
    assert_eq!(s.insert(BASE.plus(20), b"world", false, CAP), Placed::New);
    assert_eq!(s.contiguous(), b"");
    assert_eq!(
        s.insert(BASE, b"hello, beautiful old ", false, 20),
        Placed::Outside
    );
    assert_eq!(
        s.insert(BASE, b"hello, beautiful old", false, CAP),
        Placed::New
    );
    assert_eq!(s.contiguous(), b"hello, beautiful oldworld");
    assert_eq!(s.expected(), BASE.plus(25));
}

#[test]
fn an_equal_overlap_is_a_repeat_and_a_different_one_a_conflict() {
    let mut s = stream();
    assert_eq!(s.insert(BASE, b"abcd", false, CAP), Placed::New);
    assert_eq!(s.insert(BASE.plus(1), b"bc", false, CAP), Placed::Repeat);
    assert_eq!(s.insert(BASE.plus(2), b"cdef", false, CAP), Placed::New);
    assert_eq!(
        s.insert(BASE.plus(2), b"cdeF", false, CAP),
        Placed::Conflict
    );
    assert_eq!(s.contiguous(), b"abcdef");
}

#[test]
fn a_conflict_with_bytes_still_out_of_order_is_seen() {
    let mut s = stream();
    assert_eq!(s.insert(BASE.plus(10), b"xyz", false, CAP), Placed::New);
    assert_eq!(
        s.insert(BASE.plus(8), b"..!yz", false, CAP),
        Placed::Conflict
    );
    assert_eq!(s.insert(BASE.plus(8), b"..xyz!", false, CAP), Placed::New);
}

#[test]
fn a_keep_alive_is_old_and_a_straddling_segment_is_told_apart() {
    let mut s = stream();
    assert_eq!(
        s.insert(Seq(BASE.0.wrapping_sub(1)), b"", false, CAP),
        Placed::Old
    );
    assert_eq!(
        s.insert(Seq(BASE.0.wrapping_sub(1)), b"x", false, CAP),
        Placed::Old
    );
    assert_eq!(
        s.insert(Seq(BASE.0.wrapping_sub(1)), b"xy", false, CAP),
        Placed::Straddles
    );
}

#[test]
fn nothing_may_follow_the_fin() {
    let mut s = stream();
    assert_eq!(s.insert(BASE, b"ab", true, CAP), Placed::New);
    assert!(s.is_finished());
    assert_eq!(s.insert(BASE, b"ab", true, CAP), Placed::Repeat);
    assert_eq!(s.insert(BASE.plus(2), b"c", false, CAP), Placed::AfterFin);
    assert_eq!(s.insert(BASE.plus(1), b"b", false, CAP), Placed::Repeat);
    let mut early = stream();
    assert_eq!(
        early.insert(BASE.plus(4), b"later", false, CAP),
        Placed::New
    );
    assert_eq!(early.insert(BASE.plus(2), b"", true, CAP), Placed::AfterFin);
}

#[test]
fn a_fin_before_its_data_waits_for_it() {
    let mut s = stream();
    assert_eq!(s.insert(BASE.plus(3), b"", true, CAP), Placed::New);
    assert!(!s.is_finished());
    assert_eq!(s.insert(BASE, b"abc", false, CAP), Placed::New);
    assert!(s.is_finished());
}

#[test]
fn acknowledged_bytes_are_forgotten_and_later_ones_keep_their_place() {
    let mut s = stream();
    assert_eq!(s.insert(BASE, b"abcdef", false, CAP), Placed::New);
    assert_eq!(s.insert(BASE.plus(8), b"ij", false, CAP), Placed::New);
    s.release_to(6);
    s.acknowledged(BASE.plus(4));
    assert_eq!(s.contiguous(), b"ef");
    assert_eq!(s.insert(BASE, b"ABCD", false, CAP), Placed::Old);
    assert_eq!(s.insert(BASE.plus(6), b"gh", false, CAP), Placed::New);
    assert_eq!(s.contiguous(), b"efghij");
}

#[test]
fn opaque_bytes_pass_and_judged_ones_are_still_compared() {
    let mut s = stream();
    assert_eq!(s.insert(BASE, b"abcd", false, CAP), Placed::New);
    s.stop_inspecting();
    assert_eq!(s.insert(BASE.plus(2), b"cdXX", false, CAP), Placed::Opaque);
    assert_eq!(
        s.insert(BASE.plus(2), b"cDXX", false, CAP),
        Placed::Conflict
    );
    assert_eq!(s.insert(BASE.plus(900), b"far", false, CAP), Placed::Opaque);
    assert_eq!(s.bytes(), 4);
}

#[test]
fn a_download_may_be_longer_than_the_sequence_space() {
    let mut s = stream();
    assert_eq!(s.insert(BASE, b"head", false, CAP), Placed::New);
    s.stop_inspecting();
    let step = 1_u32 << 20;
    let bytes = vec![7; 1 << 20];
    let mut at = BASE.plus(4);
    for _ in 0..5_000 {
        assert_eq!(s.insert(at, &bytes, false, CAP), Placed::Opaque);
        at = at.plus(step);
        assert_eq!(s.released_to(), at);
    }
}

proptest! {
    /// Whatever the pieces, their order and their repeats: no conflict, the bytes come out
    /// as they went in, and memory never exceeds the stream.
    #[test]
    fn any_cut_in_any_order_gives_the_same_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 1..60),
        cuts in proptest::collection::vec((0usize..60, 1usize..30), 0..40),
    ) {
        let mut s = stream();
        for (at, len) in cuts {
            let at = at.min(bytes.len() - 1);
            let end = (at + len).min(bytes.len());
            let placed = s.insert(BASE.plus(u32::try_from(at).unwrap()), &bytes[at..end], false, CAP);
            prop_assert!(matches!(placed, Placed::New | Placed::Repeat));
            prop_assert!(s.bytes() <= bytes.len());
            prop_assert!(bytes.starts_with(s.contiguous()));
        }
        s.insert(BASE, &bytes, false, CAP);
        prop_assert_eq!(s.contiguous(), &bytes[..]);
        prop_assert_eq!(s.bytes(), bytes.len());
    }
}
