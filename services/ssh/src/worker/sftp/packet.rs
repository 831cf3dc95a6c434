//! Reading and writing the parts of SFTP packets.

use super::Attributes;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// A packet that ends before its parts do.
#[derive(Debug)]
pub(super) struct Malformed;

/// Takes the parts of a packet from its front.
pub(super) struct Parts<'a>(pub &'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    pub fn number(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed)?;
        Ok(u32::from_be_bytes(bytes))
    }

    pub fn long(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?.try_into().map_err(|_| Malformed)?;
        Ok(u64::from_be_bytes(bytes))
    }

    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()? as usize;
        self.take(length)
    }

    pub fn attributes(&mut self) -> Result<Attributes, Malformed> {
        let present = self.number()?;
        let mut attributes = Attributes::default();
        if present & SIZE != 0 {
            attributes.size = Some(self.long()?);
        }
        if present & OWNER != 0 {
            attributes.owner = Some((self.number()?, self.number()?));
        }
        if present & PERMISSIONS != 0 {
            attributes.permissions = Some(self.number()?);
        }
        if present & TIMES != 0 {
            attributes.times = Some((self.number()?, self.number()?));
        }
        if present & EXTENDED != 0 {
            for _ in 0..self.number()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(attributes)
    }
}

/// A reply that is being written.
pub(super) struct Reply(pub Vec<u8>);

impl Reply {
    pub fn new(kind: u8, id: u32) -> Self {
        let mut reply = Self(Vec::with_capacity(64));
        reply.0.push(kind);
        reply.number(id);
        reply
    }

    pub fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub fn long(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub fn string(&mut self, text: &[u8]) {
        // Longer texts than 4 GiB do not occur: names and blocks are bounded.
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text);
    }

    pub fn attributes(&mut self, attributes: &Attributes) {
        let flag = |present: bool, flag| if present { flag } else { 0 };
        self.number(
            flag(attributes.size.is_some(), SIZE)
                | flag(attributes.owner.is_some(), OWNER)
                | flag(attributes.permissions.is_some(), PERMISSIONS)
                | flag(attributes.times.is_some(), TIMES),
        );
        if let Some(size) = attributes.size {
            self.long(size);
        }
        for (first, second) in attributes.owner.into_iter() {
            self.number(first);
            self.number(second);
        }
        if let Some(permissions) = attributes.permissions {
            self.number(permissions);
        }
        if let Some((access, modification)) = attributes.times {
            self.number(access);
            self.number(modification);
        }
    }
}
