//! As much of an ELF reader as it takes to compare programs: what a 64-bit little-endian relocatable object brings
//! into the kernel (instructions, map definitions, constants), with relocations by symbol name (System V ABI,
//! chapters 4 and 5).
//!
//! Section and symbol numbers move when debugging information does, so a relocation counts as the place it patches
//! and the name it asks for.

use anyhow::{Context as _, Result, ensure};

const SHT_SYMTAB: u32 = 2;
const SHT_REL: u32 = 9;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const INSTRUCTION_BYTES: usize = 8;
const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const RELOCATION_BYTES: usize = 16;

/// One section that is loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    name: String,
    executable: bool,
    bytes: Vec<u8>,
    /// Offset and symbol of each relocation, in order.
    relocations: Vec<(u64, String)>,
}

impl Loaded {
    /// Eight-byte instruction slots.
    pub(super) fn instructions(&self) -> usize {
        if self.executable { self.bytes.len() / INSTRUCTION_BYTES } else { 0 }
    }
}

/// Every section that is loaded and not empty, in the order of their names.
pub(super) fn loaded_sections(object: &[u8]) -> Result<Vec<Loaded>> {
    let elf = Elf::parse(object)?;
    let mut sections = Vec::new();
    for (index, section) in elf.sections.iter().enumerate() {
        if section.flags & SHF_ALLOC == 0 || section.size == 0 {
            continue;
        }
        let relocations =
            match elf.sections.iter().find(|other| other.kind == SHT_REL && other.info as usize == index) {
                Some(relocations) => elf.relocations(relocations)?,
                None => Vec::new(),
            };
        sections.push(Loaded {
            executable: section.flags & SHF_EXECINSTR != 0,
            name: elf.section_name(section)?,
            bytes: elf.contents(section)?.to_vec(),
            relocations,
        });
    }
    ensure!(sections.iter().any(|section| section.instructions() > 0), "the object has no instructions");
    sections.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sections)
}

/// FNV-1a over names, contents and relocations: it tells builds apart, it does not defend against anybody.
pub(super) fn hash(sections: &[Loaded]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for section in sections {
        add(section.name.as_bytes());
        add(&(section.bytes.len() as u64).to_le_bytes());
        add(&section.bytes);
        for (offset, symbol) in &section.relocations {
            add(&offset.to_le_bytes());
            add(symbol.as_bytes());
            add(&[0]);
        }
    }
    hash
}

struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
}

struct Elf<'a> {
    object: &'a [u8],
    sections: Vec<Section>,
    names: usize,
}

impl<'a> Elf<'a> {
    fn parse(object: &'a [u8]) -> Result<Self> {
        ensure!(object.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF object");
        let table = usize::try_from(u64_at(object, 0x28)?)?;
        let count = usize::from(u16_at(object, 0x3c)?);
        let names = usize::from(u16_at(object, 0x3e)?);
        let sections = (0..count)
            .map(|index| {
                let at = table + index * SECTION_HEADER_BYTES;
                Ok(Section {
                    name: u32_at(object, at)?,
                    kind: u32_at(object, at + 4)?,
                    flags: u64_at(object, at + 8)?,
                    offset: u64_at(object, at + 24)?,
                    size: u64_at(object, at + 32)?,
                    link: u32_at(object, at + 40)?,
                    info: u32_at(object, at + 44)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { object, sections, names })
    }

    fn contents(&self, section: &Section) -> Result<&'a [u8]> {
        let start = usize::try_from(section.offset)?;
        let size = usize::try_from(section.size)?;
        self.object
            .get(start..)
            .and_then(|rest| rest.get(..size))
            .context("a section lies outside the object")
    }

    fn section_name(&self, section: &Section) -> Result<String> {
        let names = self.sections.get(self.names).context("there are no section names")?;
        string_at(self.contents(names)?, section.name)
    }

    fn relocations(&self, section: &Section) -> Result<Vec<(u64, String)>> {
        let symbols = self.sections.get(section.link as usize).context("relocations without symbols")?;
        ensure!(symbols.kind == SHT_SYMTAB, "relocations without symbols");
        let strings = self.sections.get(symbols.link as usize).context("symbols without names")?;
        let (symbols, strings) = (self.contents(symbols)?, self.contents(strings)?);
        self.contents(section)?
            .chunks_exact(RELOCATION_BYTES)
            .map(|relocation| {
                let offset = u64_at(relocation, 0)?;
                let symbol = usize::try_from(u64_at(relocation, 8)? >> 32)? * SYMBOL_BYTES;
                let name = u32_at(symbols, symbol)?;
                // A section's own symbol has no name; the section's name is as good.
                let owner = usize::from(u16_at(symbols, symbol + 6)?);
                match (name, self.sections.get(owner)) {
                    (0, Some(owner)) => Ok((offset, self.section_name(owner)?)),
                    _ => Ok((offset, string_at(strings, name)?)),
                }
            })
            .collect()
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk().copied())
        .with_context(|| format!("the object ends before byte {}", offset.saturating_add(N)))
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16> {
    bytes_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    bytes_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64> {
    bytes_at(bytes, offset).map(u64::from_le_bytes)
}

fn string_at(strings: &[u8], offset: u32) -> Result<String> {
    let rest = strings.get(offset as usize..).context("a name lies outside the object")?;
    let end = rest.iter().position(|&byte| byte == 0).context("a name does not end")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &[u8] = include_bytes!("../../../ebpf/object/steer.bpf.o");

    #[test]
    fn the_kept_object_has_the_program_and_refers_to_its_maps() {
        let sections = loaded_sections(OBJECT).expect("it is an object");
        let program = sections.iter().find(|section| section.name == "xdp.frags").expect("the program");
        assert!(program.instructions() > 100);
        assert!(program.relocations.iter().any(|(_, symbol)| symbol == "SERVICES"));
    }

    #[test]
    fn one_changed_instruction_changes_the_hash() {
        let mut sections = loaded_sections(OBJECT).expect("it is an object");
        let before = hash(&sections);
        sections[0].bytes[0] ^= 1;
        assert_ne!(hash(&sections), before);
    }

    #[test]
    fn an_object_cut_short_anywhere_is_an_error_or_whole() {
        let whole = loaded_sections(OBJECT).expect("it is an object");
        for length in (0..OBJECT.len()).step_by(97) {
            if let Ok(sections) = loaded_sections(&OBJECT[..length]) {
                assert_eq!(sections, whole);
            }
        }
    }
}
