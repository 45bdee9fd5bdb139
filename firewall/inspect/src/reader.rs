//! A bounds-checked cursor: the only thing in the parsers that slices input.
//!
//! Every method either consumes exactly what it returns or returns `None` and leaves the cursor
//! unspecified; callers turn `None` into their own refusal.

/// A cursor over bytes that came from the wire.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been consumed.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been consumed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Number of bytes not consumed.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count)?;
        self.rest = tail;
        Some(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        let (&first, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(first)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes, big-endian: the length of a TLS handshake message.
    pub fn u24(&mut self) -> Option<usize> {
        let [high, middle, low] = self.array()?;
        Some(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A vector with a one-byte length in front.
    pub fn vec8(&mut self) -> Option<Self> {
        let length = usize::from(self.u8()?);
        self.bytes(length).map(Self::new)
    }

    /// A vector with a two-byte length in front.
    pub fn vec16(&mut self) -> Option<Self> {
        let length = usize::from(self.u16()?);
        self.bytes(length).map(Self::new)
    }

    /// A vector with a three-byte length in front.
    pub fn vec24(&mut self) -> Option<Self> {
        let length = self.u24()?;
        self.bytes(length).map(Self::new)
    }

    /// A vector with a four-byte length in front: `string` of RFC 4251, section 5.
    pub fn vec32(&mut self) -> Option<Self> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.bytes(length).map(Self::new)
    }

    /// All that is left, as big-endian 16-bit numbers; `None` if a byte is left over.
    pub fn u16s(&mut self) -> Option<impl ExactSizeIterator<Item = u16> + Clone + use<'a>> {
        let (pairs, odd) = self.rest.as_chunks::<2>();
        self.rest = odd;
        odd.is_empty()
            .then(|| pairs.iter().map(|pair| u16::from_be_bytes(*pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_longer_than_its_input_is_none() {
        assert!(Reader::new(&[3, 1, 2]).vec8().is_none());
        assert!(Reader::new(&[0, 3, 1, 2]).vec16().is_none());
        assert!(Reader::new(&[0, 0, 3, 1, 2]).vec24().is_none());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).vec32().is_none());
    }

    #[test]
    fn numbers_are_big_endian() {
        let mut reader = Reader::new(&[1, 2, 3, 0, 1, 0, 9, 8, 7, 6]);
        assert_eq!(reader.u8(), Some(1));
        assert_eq!(reader.u16(), Some(0x0203));
        assert_eq!(reader.u24(), Some(0x0100));
        assert_eq!(reader.u32(), Some(0x0908_0706));
        assert!(reader.is_empty());
        assert_eq!(reader.u8(), None);
    }

    #[test]
    fn an_odd_list_of_u16_is_none() {
        let numbers = |bytes: &[u8]| Some(Reader::new(bytes).u16s()?.collect::<Vec<_>>());
        assert_eq!(numbers(&[0, 1, 0, 2]), Some(vec![1, 2]));
        assert_eq!(numbers(&[0, 1, 0]), None);
    }
}
