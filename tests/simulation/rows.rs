//! What stands in for a table's columns: the identity of each row, and nothing else.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use weir::codec::rows::{BadRow, Kind, Rows, Slot};
use weir::runtime::letters::LetterBlocks;
use weir::sink::{Block, BlockBuilder, BuilderMark, ColumnHeader};
use weir::state::letters::Letter;

/// In the place of an offset: the row has no record of that input.
pub const NOBODY: i64 = -1;

/// A row or a dead letter, by the record it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowId {
    pub is_letter: bool,
    /// Which topic of that name: it may have been deleted and made again.
    pub generation: u8,
    pub input: u16,
    pub partition: i32,
    pub offset: i64,
    /// The records of the second and third input that a join has put beside it.
    pub beside: [i64; 2],
}

impl RowId {
    const BYTES: usize = 32;

    pub fn letter(input: u16, partition: i32, offset: i64) -> RowId {
        RowId { is_letter: true, generation: 0, input, partition, offset, beside: [NOBODY; 2] }
    }

    /// A row of a join: the offsets of who met, by input.
    pub fn joined(partition: i32, [offset, beside @ ..]: [i64; 3]) -> RowId {
        RowId { is_letter: false, generation: 0, input: 0, partition, offset, beside }
    }

    /// Whether it has records of more than one side.
    pub fn has_met(&self) -> bool {
        [self.offset, self.beside[0], self.beside[1]].iter().filter(|offset| **offset != NOBODY).count() > 1
    }

    fn write(&self, body: &mut Vec<u8>) {
        body.extend([self.is_letter as u8, self.generation]);
        body.extend(self.input.to_be_bytes());
        body.extend(self.partition.to_be_bytes());
        body.extend(self.offset.to_be_bytes());
        self.beside.iter().for_each(|offset| body.extend(offset.to_be_bytes()));
    }

    fn read(bytes: &[u8]) -> RowId {
        RowId {
            is_letter: bytes[0] == 1,
            generation: bytes[1],
            input: u16::from_be_bytes([bytes[2], bytes[3]]),
            partition: i32::from_be_bytes(bytes[4..8].try_into().unwrap()),
            offset: i64::from_be_bytes(bytes[8..16].try_into().unwrap()),
            beside: [16, 24].map(|at| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())),
        }
    }

    /// The rows of a block.
    pub fn all_of(block: &Block) -> Vec<RowId> {
        RowId::all_in(&block.body)
    }

    /// The same of its bytes.
    pub fn all_in(body: &[u8]) -> Vec<RowId> {
        body.chunks_exact(RowId::BYTES).map(RowId::read).collect()
    }
}

fn block(rows: &[RowId]) -> Block {
    let mut body = Vec::new();
    rows.iter().for_each(|row| row.write(&mut body));
    Block {
        header: vec![ColumnHeader { name: "id".into(), type_text: "FixedString(32)".into() }],
        rows: rows.len() as u64,
        hash: xxhash_rust::xxh3::xxh3_128(&body).to_be_bytes(),
        body: Bytes::from(body),
    }
}

/// Collects rows; one whose field `v` is no number does not fit, until the table is mended.
pub struct RowBuilder {
    rows: Vec<RowId>,
    is_mended: Arc<AtomicBool>,
    value: Slot,
    generation: Slot,
    partition: Slot,
    joined: Option<JoinedSlots>,
}

/// Partition and offset as the payload of each side tells them.
struct JoinedSlots {
    partition: [Slot; 3],
    offset: [Slot; 3],
}

impl JoinedSlots {
    fn new(resolve: &mut dyn FnMut(&str) -> Slot) -> JoinedSlots {
        JoinedSlots { partition: ["p", "bp", "cp"].map(&mut *resolve), offset: ["o", "bo", "co"].map(resolve) }
    }

    fn id(&self, rows: &Rows, row: u32) -> RowId {
        let number = |slot: &Slot| {
            let field = rows.field(row, *slot);
            (!field.is_null()).then(|| std::str::from_utf8(rows.text(field)).unwrap().parse::<i64>().unwrap())
        };
        let partition = self.partition.iter().find_map(number).expect("some record is there");
        RowId::joined(partition as i32, [0, 1, 2].map(|side| number(&self.offset[side]).unwrap_or(NOBODY)))
    }
}

impl RowBuilder {
    pub fn new(resolve: &mut dyn FnMut(&str) -> Slot, is_mended: Arc<AtomicBool>, has_joins: bool) -> RowBuilder {
        RowBuilder {
            joined: has_joins.then(|| JoinedSlots::new(resolve)),
            rows: vec![],
            is_mended,
            value: resolve("v"),
            generation: resolve("g"),
            partition: resolve("_partition"),
        }
    }
}

impl BlockBuilder for RowBuilder {
    fn append(&mut self, rows: &Rows, alive: &[u32], bad: &mut Vec<BadRow>) {
        if let Some(joined) = &self.joined {
            return self.rows.extend(alive.iter().map(|row| joined.id(rows, *row)));
        }
        for &row in alive {
            if rows.field(row, self.value).kind != Kind::Number && !self.is_mended.load(Relaxed) {
                bad.push(BadRow { row, reason: "type", message: "`v` is no number".into() });
                continue;
            }
            let meta = &rows.meta[row as usize];
            let generation = rows.text(rows.field(row, self.generation));
            self.rows.push(RowId {
                is_letter: false,
                generation: std::str::from_utf8(generation).unwrap().parse().unwrap(),
                input: meta.input,
                partition: rows.field(row, self.partition).as_int() as i32,
                offset: meta.offset,
                beside: [NOBODY; 2],
            });
        }
    }

    fn mark(&mut self) -> BuilderMark {
        BuilderMark(self.rows.len() as u64)
    }

    fn rollback(&mut self, mark: BuilderMark) {
        self.rows.truncate(mark.0 as usize);
    }

    fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    fn bytes(&self) -> usize {
        self.rows.len() * RowId::BYTES
    }

    fn seal(&mut self) -> Option<Block> {
        let rows = std::mem::take(&mut self.rows);
        (!rows.is_empty()).then(|| block(&rows))
    }
}

/// Dead letters go to a table of their own.
pub struct LetterTable;

pub const LETTER_TARGET: &str = "db/letters";
pub const ROW_TARGET: &str = "db/rows";

impl LetterBlocks for LetterTable {
    fn target(&self) -> &str {
        LETTER_TARGET
    }

    fn encode(&mut self, letters: &[Letter]) -> Block {
        let id = |letter: &Letter| RowId {
            is_letter: true,
            generation: generation_of(letter.value.as_deref().unwrap_or_default()),
            input: letter.topic.trim_start_matches("topic").parse().unwrap(),
            partition: letter.partition as i32,
            offset: letter.offset,
            beside: [NOBODY; 2],
        };
        block(&letters.iter().map(id).collect::<Vec<_>>())
    }
}

/// Broken payloads tell it, too: it is their first number.
fn generation_of(payload: &[u8]) -> u8 {
    payload.iter().find(|byte| byte.is_ascii_digit()).map_or(0, |digit| digit - b'0')
}
