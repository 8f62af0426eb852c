//! CBOR, read strictly: one item after the other, bounded in depth, borrowed where the encoding allows it.

use super::DecodeError;
use minicbor::Decoder;
use minicbor::data::Type;
use std::borrow::Cow;

/// Nesting of arrays, maps and tags in a value that nobody asked for; deeper is refused.
const DEPTH_MAX: u32 = 32;
/// The tag that says "this is CBOR".
const SELF_DESCRIBED: u64 = 55799;

/// Reads the items of one CBOR document.
pub(crate) struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    /// Begins at the document's item, after the tag that says it is CBOR, if there is one.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Self(Decoder::new(bytes));
        while reader.kind()? == Type::Tag {
            if reader.0.tag()?.as_u64() != SELF_DESCRIBED {
                return Err(DecodeError::new("unexpected tag"));
            }
        }
        Ok(reader)
    }

    /// Fails if anything is left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.position() == self.0.input().len() {
            Ok(())
        } else {
            Err(DecodeError::new("trailing bytes"))
        }
    }

    fn kind(&self) -> Result<Type, DecodeError> {
        Ok(self.0.datatype()?)
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        match self.kind()? {
            Type::Bytes => Ok(Cow::Borrowed(self.0.bytes()?)),
            Type::BytesIndef => {
                let mut joined = Vec::new();
                for part in self.0.bytes_iter()? {
                    joined.extend_from_slice(part?);
                }
                Ok(Cow::Owned(joined))
            }
            other => Err(DecodeError::expected("a byte string", other)),
        }
    }

    /// A text string.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        match self.kind()? {
            Type::String => Ok(Cow::Borrowed(self.0.str()?)),
            Type::StringIndef => {
                let mut joined = String::new();
                for part in self.0.str_iter()? {
                    joined.push_str(part?);
                }
                Ok(Cow::Owned(joined))
            }
            other => Err(DecodeError::expected("a text string", other)),
        }
    }

    /// The bytes of a byte string or of a text string.
    pub(crate) fn bytes_or_text(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        if !matches!(self.kind()?, Type::String | Type::StringIndef) {
            return self.bytes();
        }
        Ok(match self.text()? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    /// A number from 0 to 2^64 - 1.
    pub(crate) fn nat(&mut self) -> Result<u64, DecodeError> {
        match self.kind()? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Ok(self.0.u64()?),
            other => Err(DecodeError::expected("an unsigned integer", other)),
        }
    }

    /// A number, negative ones included, that fits 64 bits.
    pub(crate) fn integer(&mut self) -> Result<i64, DecodeError> {
        Ok(self.0.i64()?)
    }

    /// Whatever is next: a number or bytes, or something that is passed over.
    pub(crate) fn number_or_bytes(&mut self) -> Result<NumberOrBytes<'a>, DecodeError> {
        Ok(match self.kind()? {
            Type::Bytes | Type::BytesIndef => NumberOrBytes::Bytes(self.bytes()?),
            kind if is_integer(kind) => NumberOrBytes::Number(self.integer()?),
            _ => {
                self.skip(DEPTH_MAX)?;
                NumberOrBytes::Other
            }
        })
    }

    /// Takes a null, if one is next.
    pub(crate) fn null(&mut self) -> Result<bool, DecodeError> {
        if self.kind()? != Type::Null {
            return Ok(false);
        }
        self.0.null()?;
        Ok(true)
    }

    /// Calls `item` at each item of an array of at most `items_max`.
    pub(crate) fn array(
        &mut self,
        items_max: usize,
        what: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !matches!(self.kind()?, Type::Array | Type::ArrayIndef) {
            return Err(DecodeError::expected("an array", self.kind()?));
        }
        let mut count = Count(self.0.array()?);
        let mut seen = 0;
        while count.another(&mut self.0)? {
            seen += 1;
            if seen > items_max {
                return Err(DecodeError::owned(format!(
                    "too many {what}: at most {items_max} are allowed"
                )));
            }
            item(self)?;
        }
        Ok(())
    }

    /// Calls `entry` at the value of each entry of a map with text keys. It returns false if it does not know the key,
    /// and then has read nothing.
    pub(crate) fn map(
        &mut self,
        mut entry: impl FnMut(&mut Self, &str) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !matches!(self.kind()?, Type::Map | Type::MapIndef) {
            return Err(DecodeError::expected("a map", self.kind()?));
        }
        let mut count = Count(self.0.map()?);
        while count.another(&mut self.0)? {
            let key = self.text()?;
            if !entry(self, &key)? {
                self.skip(DEPTH_MAX)?;
            }
        }
        Ok(())
    }

    /// Calls `entry` at the value of each entry of a map that has an integer as its key, as COSE has them; other keys are
    /// passed over. It returns false if it does not know the key, and then has read nothing.
    pub(crate) fn integer_map(
        &mut self,
        mut entry: impl FnMut(&mut Self, i64) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !matches!(self.kind()?, Type::Map | Type::MapIndef) {
            return Err(DecodeError::expected("a map", self.kind()?));
        }
        let mut count = Count(self.0.map()?);
        while count.another(&mut self.0)? {
            let known = if is_integer(self.kind()?) {
                let key = self.integer()?;
                entry(self, key)?
            } else {
                self.skip(DEPTH_MAX)?;
                false
            };
            if !known {
                self.skip(DEPTH_MAX)?;
            }
        }
        Ok(())
    }

    /// Passes over one item.
    fn skip(&mut self, depth: u32) -> Result<(), DecodeError> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(DecodeError::new("nested too deep"));
        };
        match self.kind()? {
            Type::Array | Type::ArrayIndef => {
                let mut count = Count(self.0.array()?);
                while count.another(&mut self.0)? {
                    self.skip(deeper)?;
                }
            }
            Type::Map | Type::MapIndef => {
                let mut count = Count(self.0.map()?);
                while count.another(&mut self.0)? {
                    self.skip(deeper)?;
                    self.skip(deeper)?;
                }
            }
            Type::Tag => {
                self.0.tag()?;
                self.skip(deeper)?;
            }
            // Strings and numbers do not nest, so that the library's own way over them is bounded.
            _ => self.0.skip()?,
        }
        Ok(())
    }
}

/// What [`Reader::number_or_bytes`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NumberOrBytes<'a> {
    Number(i64),
    Bytes(Cow<'a, [u8]>),
    Other,
}

fn is_integer(kind: Type) -> bool {
    matches!(
        kind,
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int
    )
}

/// Items of an array or map that are still to come; `None` where a break ends them.
struct Count(Option<u64>);

impl Count {
    fn another(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, DecodeError> {
        match &mut self.0 {
            Some(0) => Ok(false),
            Some(rest) => {
                *rest -= 1;
                Ok(true)
            }
            None if decoder.datatype()? == Type::Break => {
                decoder.skip()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}
