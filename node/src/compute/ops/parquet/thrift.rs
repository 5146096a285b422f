//! Thrift's compact protocol, as much of it as Parquet's footers and page headers need.
//!
//! What is read comes from anybody: nothing is allocated by what a length claims, and nothing is nested deeper than
//! [`DEPTH_MAX`].

/// What is skipped is nested no deeper than this. Parquet's own structures go down to about ten.
const DEPTH_MAX: u32 = 32;

/// Bytes that are not what they should be: what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) &'static str);

const CUT_SHORT: Fault = Fault("it is cut short");
const WRONG_TYPE: Fault = Fault("a field has another type than it should");

/// Of what type a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a structure the value is that of the type, and there are no bytes.
    Bool(bool),
    Byte,
    /// Of 16, 32 or 64 bits.
    Integer,
    Double,
    Binary,
    /// Or a set.
    List,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn of(code: u8) -> Result<Kind, Fault> {
        Ok(match code {
            1 => Kind::Bool(true),
            2 => Kind::Bool(false),
            3 => Kind::Byte,
            4..=6 => Kind::Integer,
            7 => Kind::Double,
            8 => Kind::Binary,
            9 | 10 => Kind::List,
            11 => Kind::Map,
            12 => Kind::Struct,
            13 => Kind::Uuid,
            _ => return Err(Fault("a field has a type that there is not")),
        })
    }
}

/// Reads from the beginning of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thrift<'a> {
    left: &'a [u8],
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Thrift { left: bytes }
    }

    /// How many bytes were not read yet.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).map_err(|_| CUT_SHORT)?;
        let (taken, left) = self.left.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.left = left;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let (first, left) = self.left.split_first().ok_or(CUT_SHORT)?;
        self.left = left;
        Ok(*first)
    }

    fn unsigned(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault("a number is too long"))
    }

    fn zigzag(&mut self) -> Result<i64, Fault> {
        let value = self.unsigned()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A whole number.
    pub(super) fn integer(&mut self, kind: Kind) -> Result<i64, Fault> {
        match kind {
            Kind::Integer => self.zigzag(),
            Kind::Byte => Ok(i64::from(self.byte()?.cast_signed())),
            _ => Err(WRONG_TYPE),
        }
    }

    /// A whole number from 0 on.
    pub(super) fn count(&mut self, kind: Kind) -> Result<u64, Fault> {
        u64::try_from(self.integer(kind)?).map_err(|_| Fault("a length or an offset is negative"))
    }

    /// Bytes, or text.
    pub(super) fn binary(&mut self, kind: Kind) -> Result<&'a [u8], Fault> {
        if kind != Kind::Binary {
            return Err(WRONG_TYPE);
        }
        let length = self.unsigned()?;
        self.take(length)
    }

    /// The fields of a structure. `field` reads those that it knows and answers true; others are passed over.
    pub(super) fn structure(
        &mut self,
        kind: Kind,
        mut field: impl FnMut(&mut Self, i64, Kind) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        if kind != Kind::Struct {
            return Err(WRONG_TYPE);
        }
        let mut last = 0_i64;
        while let Some((id, kind)) = self.field(last)? {
            last = id;
            if !field(self, id, kind)? {
                self.skip(kind, 0)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, last: i64) -> Result<Option<(i64, Kind)>, Fault> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let kind = Kind::of(head & 0x0f)?;
        let id = match head >> 4 {
            0 => self.zigzag()?,
            more => last.saturating_add(i64::from(more)),
        };
        // So writers do it, and what is there twice is not read twice.
        if id <= last { Err(Fault("fields are out of order")) } else { Ok(Some((id, kind))) }
    }

    /// The items of a list.
    pub(super) fn list(
        &mut self,
        kind: Kind,
        mut item: impl FnMut(&mut Self, Kind) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if kind != Kind::List {
            return Err(WRONG_TYPE);
        }
        let (count, kind) = self.list_head()?;
        (0..count).try_for_each(|_| item(self, kind))
    }

    fn list_head(&mut self) -> Result<(u64, Kind), Fault> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.unsigned()?,
            short => u64::from(short),
        };
        // Each item has a byte, or more.
        if count > self.left.len() as u64 { Err(CUT_SHORT) } else { Ok((count, Kind::of(head & 0x0f)?)) }
    }

    fn skip(&mut self, kind: Kind, depth: u32) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault("it is nested too deeply"));
        }
        match kind {
            Kind::Bool(_) => {}
            Kind::Byte => self.byte().map(drop)?,
            Kind::Integer => self.unsigned().map(drop)?,
            Kind::Double => self.take(8).map(drop)?,
            Kind::Uuid => self.take(16).map(drop)?,
            Kind::Binary => self.binary(kind).map(drop)?,
            Kind::List => {
                let (count, kind) = self.list_head()?;
                for _ in 0..count {
                    self.skip_item(kind, depth + 1)?;
                }
            }
            Kind::Map => {
                let count = self.unsigned()?;
                if count > self.left.len() as u64 {
                    return Err(CUT_SHORT);
                }
                let kinds = if count > 0 { self.byte()? } else { 0x11 };
                let (key, value) = (Kind::of(kinds >> 4)?, Kind::of(kinds & 0x0f)?);
                for _ in 0..count {
                    self.skip_item(key, depth + 1)?;
                    self.skip_item(value, depth + 1)?;
                }
            }
            Kind::Struct => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    last = id;
                    self.skip(kind, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Outside of structures a truth value is a byte.
    fn skip_item(&mut self, kind: Kind, depth: u32) -> Result<(), Fault> {
        match kind {
            Kind::Bool(_) => self.byte().map(drop),
            _ => self.skip(kind, depth),
        }
    }
}

/// A truth value in a structure.
pub(super) fn flag(kind: Kind) -> Result<bool, Fault> {
    match kind {
        Kind::Bool(value) => Ok(value),
        _ => Err(WRONG_TYPE),
    }
}
