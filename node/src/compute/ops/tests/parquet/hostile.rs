//! Files that no honest writer makes: a failure of the task, in bounded memory, and never more than that.

use std::process::Command;

use super::*;

/// Thrift's compact protocol, with whatever one likes.
#[derive(Clone, Default)]
struct Thrift {
    bytes: Vec<u8>,
    last: i64,
}

fn unsigned(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

impl Thrift {
    fn field(mut self, id: i64, kind: u8, bytes: &[u8]) -> Self {
        self.bytes.push(u8::try_from(id - self.last).unwrap() << 4 | kind);
        self.bytes.extend_from_slice(bytes);
        self.last = id;
        self
    }

    fn int(self, id: i64, value: i64) -> Self {
        self.field(id, 6, &unsigned((value << 1 ^ value >> 63).cast_unsigned()))
    }

    fn text(self, id: i64, text: &[u8]) -> Self {
        let length = unsigned(text.len() as u64);
        self.field(id, 8, &[length, text.to_vec()].concat())
    }

    fn nested(self, id: i64, inner: &Thrift) -> Self {
        self.field(id, 12, &inner.end())
    }

    /// A list of structures that claims to have so many.
    fn list(self, id: i64, claimed: u64, items: &[u8]) -> Self {
        let bytes = [&[0xfc], &unsigned(claimed)[..], items].concat();
        self.field(id, 9, &bytes)
    }

    fn end(&self) -> Vec<u8> {
        [&self.bytes[..], &[0]].concat()
    }
}

/// An element of a schema.
fn element(physical: Option<i64>, repetition: i64, children: i64) -> Thrift {
    let mut element = Thrift::default();
    if let Some(physical) = physical {
        element = element.int(1, physical);
    }
    element = element.int(3, repetition).text(4, b"a");
    if children > 0 { element.int(5, children) } else { element }
}

/// A file with one column, as it should be but for what is changed.
#[derive(Clone)]
struct File {
    schema: Vec<Thrift>,
    schema_claims: Option<u64>,
    physical: i64,
    codec: i64,
    rows: i64,
    pages: Vec<u8>,
    offset: i64,
    length: Option<i64>,
    columns: usize,
    more: Thrift,
}

impl File {
    /// Of doubles that have to be there.
    fn new(codec: i64, pages: Vec<u8>) -> Self {
        File {
            schema: vec![element(None, 0, 1), element(Some(5), 0, 0)],
            schema_claims: None,
            physical: 5,
            codec,
            rows: 3,
            pages,
            offset: 4,
            length: None,
            columns: 1,
            more: Thrift::default(),
        }
    }

    /// Of doubles that may be missing.
    fn optional(pages: Vec<u8>) -> Self {
        File { schema: vec![element(None, 0, 1), element(Some(5), 1, 0)], ..File::new(0, pages) }
    }

    fn bytes(&self) -> Vec<u8> {
        let meta = Thrift::default().int(1, self.physical).int(4, self.codec);
        let meta =
            meta.int(7, self.length.unwrap_or(i64::try_from(self.pages.len()).unwrap())).int(9, self.offset);
        let chunk = Thrift::default().nested(3, &meta);
        let chunks = vec![chunk; self.columns];
        let group = Thrift::default().list(1, chunks.len() as u64, &concat(&chunks)).int(3, self.rows);
        let claimed = self.schema_claims.unwrap_or(self.schema.len() as u64);
        let mut footer =
            Thrift::default().int(1, 1).list(2, claimed, &concat(&self.schema)).int(3, self.rows);
        footer = footer.list(4, 1, &group.end());
        footer.bytes.extend_from_slice(&self.more.bytes);
        whole(&self.pages, &footer.end())
    }
}

fn concat(items: &[Thrift]) -> Vec<u8> {
    items.iter().flat_map(Thrift::end).collect()
}

fn whole(pages: &[u8], footer: &[u8]) -> Vec<u8> {
    let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
    [b"PAR1", pages, footer, &length, b"PAR1"].concat()
}

/// A page that claims to have been so long, with a head of its kind in this field.
fn page_of(kind: i64, claimed: i64, id: i64, head: &Thrift, bytes: &[u8]) -> Vec<u8> {
    let page = Thrift::default().int(1, kind).int(2, claimed).int(3, i64::try_from(bytes.len()).unwrap());
    [page.nested(id, head).end(), bytes.to_vec()].concat()
}

fn page(claimed: i64, values: i64, encoding: i64, bytes: &[u8]) -> Vec<u8> {
    let head = Thrift::default().int(1, values).int(2, encoding).int(3, 3).int(4, 3);
    page_of(0, claimed, 5, &head, bytes)
}

fn dictionary(claimed: i64, values: i64, bytes: &[u8]) -> Vec<u8> {
    page_of(2, claimed, 7, &Thrift::default().int(1, values).int(2, 0), bytes)
}

const THREE: [u8; 24] = [0; 24];

pub(super) fn with_codec(codec: i64) -> Result<Vec<u8>, OpError> {
    attempt(&File::new(codec, page(24, 3, 0, &THREE)).bytes())
}

/// With 32 MiB of memory, 4 MiB of them for each column at a time.
fn attempt(bytes: &[u8]) -> Result<Vec<u8>, OpError> {
    let mut task = task("analyze", &[REPORT], &[bytes]);
    task.limits.memory_bytes = 32 << 20;
    outcome(&task)
}

/// A frame of so many blocks of 128 KiB of zeros, and a window of 2^(10 + `exponent`).
fn zstd(blocks: usize, exponent: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3];
    for block in 1..=blocks {
        let head = (128_u32 << 10) << 3 | 1 << 1 | u32::from(block == blocks);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

fn gzip(length: usize) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    (0..length >> 20).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap()
}

/// What each is refused with.
fn bombs() -> Vec<(&'static str, Vec<u8>, FailReason, &'static str)> {
    use FailReason::{BadInput, MemoryLimit};
    let good = || File::new(0, page(24, 3, 0, &THREE));
    let mut deep = Thrift::default();
    for _ in 0..100 {
        deep = Thrift::default().nested(1, &deep);
    }
    let run_of_nulls = {
        // The length of the levels, a run of 2^31 - 1 of them, and no values.
        let levels = [unsigned((1 << 32) - 2), vec![0]].concat();
        [u32::try_from(levels.len()).unwrap().to_le_bytes().to_vec(), levels].concat()
    };
    let v2 = |definition: i64| {
        let head = Thrift::default().int(1, 3).int(2, 0).int(3, 3).int(4, 0).int(5, definition).int(6, 0);
        page_of(3, 24, 8, &head, &THREE)
    };
    let mut huge_footer = good();
    huge_footer.more = Thrift { last: 4, ..Thrift::default() }.text(6, &vec![b'x'; 3 << 20]);
    let mut nested = good();
    nested.more = Thrift { last: 4, ..Thrift::default() }.nested(12, &deep);
    let mut lying_tail = good().bytes();
    let place = lying_tail.len() - 8;
    lying_tail[place..place + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut encrypted = good().bytes();
    *encrypted.last_mut().unwrap() = b'E';
    let snappy_claim = [unsigned(u64::from(u32::MAX)), vec![0; 30]].concat();
    vec![
        ("a footer that is longer than the file", lying_tail, BadInput, "claims 4294967295 bytes"),
        ("a footer that does not fit", huge_footer.bytes(), MemoryLimit, "limits.memory"),
        (
            "a schema of very many columns of nothing",
            File { schema: vec![Thrift::default(); 1_900_000], ..good() }.bytes(),
            MemoryLimit,
            "do not fit limits.memory",
        ),
        ("an encrypted footer", encrypted, BadInput, "encrypted"),
        ("a footer that is nested deeply", nested.bytes(), BadInput, "nested too deeply"),
        ("no footer", whole(&[], &[]), BadInput, "cut short"),
        ("no schema", whole(&[], &[0]), BadInput, "there is no schema"),
        (
            "a schema of two thousand million columns",
            File { schema: vec![element(None, 0, i64::from(i32::MAX)), element(Some(5), 0, 0)], ..good() }
                .bytes(),
            BadInput,
            "schema is cut short",
        ),
        (
            "a list that claims too many",
            File { schema_claims: Some(1 << 60), ..good() }.bytes(),
            BadInput,
            "cut short",
        ),
        (
            "more columns than the schema",
            File { columns: 7, ..good() }.bytes(),
            BadInput,
            "has 7 columns, and its schema 1",
        ),
        ("pages behind the file", File { offset: 1 << 40, ..good() }.bytes(), BadInput, "is said to be at"),
        ("pages before the file", File { offset: -8, ..good() }.bytes(), BadInput, "negative"),
        (
            "pages as long as a number can be",
            File { length: Some(i64::MAX), ..good() }.bytes(),
            BadInput,
            "is said to be",
        ),
        ("another type than the schema's", File { physical: 2, ..good() }.bytes(), BadInput, "another type"),
        ("more rows than there are", File { rows: 1 << 47, ..good() }.bytes(), BadInput, "less than rows"),
        ("more rows than anybody has", File { rows: 1 << 50, ..good() }.bytes(), BadInput, "2^48 rows"),
        ("less rows than there are", File { rows: 2, ..good() }.bytes(), BadInput, "more values than rows"),
        ("a page that is cut short", File::new(0, page(24, 3, 0, &THREE[1..])).bytes(), BadInput, ""),
        ("a head that is none", File::new(0, vec![0xff; 40]).bytes(), BadInput, "the head of a page"),
        (
            "an encoding that doubles have not",
            File::new(0, page(24, 3, 5, &THREE)).bytes(),
            BadInput,
            "encoding 5",
        ),
        ("levels longer than the page", File::optional(v2(25)).bytes(), BadInput, "more levels"),
        ("levels that overflow", File::optional(v2(i64::MAX)).bytes(), BadInput, "more levels"),
        ("no levels", File::optional(v2(0)).bytes(), BadInput, ""),
        (
            "nothing but runs",
            File {
                rows: i64::from(i32::MAX) - 1,
                ..File::optional(page(9, i64::from(i32::MAX) - 1, 0, &run_of_nulls[..5]))
            }
            .bytes(),
            BadInput,
            "",
        ),
        (
            "snappy that claims 2 GiB",
            File::new(1, page(i64::from(i32::MAX), 3, 0, &THREE)).bytes(),
            BadInput,
            "cannot be",
        ),
        (
            "snappy within that claims 4 GiB",
            File::new(1, page(24, 3, 0, &snappy_claim)).bytes(),
            BadInput,
            "that its head claims",
        ),
        (
            "LZ4 that claims 2 GiB",
            File::new(7, page(i64::from(i32::MAX), 3, 0, &THREE)).bytes(),
            BadInput,
            "cannot be",
        ),
        (
            "zstd of 1 GiB that claims it",
            File::new(6, page(1 << 30, 3, 0, &zstd(8192, 7))).bytes(),
            MemoryLimit,
            "limits.memory",
        ),
        (
            "zstd of 1 GiB that claims 24 bytes",
            File::new(6, page(24, 3, 0, &zstd(8192, 7))).bytes(),
            BadInput,
            "24 bytes",
        ),
        (
            "zstd with a window of 2 TiB",
            File::new(6, page(24, 3, 0, &zstd(1, 31))).bytes(),
            MemoryLimit,
            "limits.memory",
        ),
        (
            "zstd that is none",
            File::new(6, page(24, 3, 0, &THREE)).bytes(),
            BadInput,
            "not compressed with Zstd",
        ),
        (
            "gzip of 256 MiB that claims 24 bytes",
            File::new(2, page(24, 3, 0, &gzip(256 << 20))).bytes(),
            BadInput,
            "24 bytes",
        ),
        (
            "a dictionary of two thousand million values",
            File::new(0, [dictionary(24, i64::from(i32::MAX), &THREE), page(2, 3, 8, &[1, 6])].concat())
                .bytes(),
            MemoryLimit,
            "limits.memory",
        ),
        (
            "a dictionary of more values than it has",
            File::new(0, [dictionary(24, 4, &THREE), page(2, 3, 8, &[1, 6])].concat()).bytes(),
            BadInput,
            "more values than it has",
        ),
        (
            "no dictionary",
            File::new(0, page(2, 3, 8, &[1, 6])).bytes(),
            BadInput,
            "a dictionary that is not there",
        ),
        (
            "values that are not in the dictionary",
            File::new(0, [dictionary(24, 3, &THREE), page(3, 3, 8, &[8, 6, 200])].concat()).bytes(),
            BadInput,
            "",
        ),
    ]
}

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn what_claims_too_much_is_refused() {
    let file = File::new(0, page(24, 3, 0, &THREE)).bytes();
    let read = report(&attempt(&file).unwrap());
    assert_eq!((&read["rows"], &read["columns"][0]["count"]), (&3.into(), &3.into()), "as it should be");
    let bombs = bombs();
    let before = peak_kib();
    for (what, bytes, reason, detail) in bombs {
        let error = attempt(&bytes).map(|bytes| report(&bytes)).expect_err(what);
        assert_eq!(error.reason, reason, "{what}: {error}");
        assert!(error.detail.contains(detail), "{what}: {error}");
        println!("{what}: {error}");
    }
    // A schema as deep as it is long has no numbers, and that is all.
    let mut schema = vec![element(None, 0, 1); 30_000];
    schema.push(element(Some(5), 0, 0));
    let read = attempt(&File { schema, ..File::new(0, Vec::new()) }.bytes()).unwrap();
    assert_eq!(report(&read)["columns"], serde_json::json!([]));
    println!("grown by {} KiB", peak_kib() - before);
}

#[test]
fn what_claims_too_much_takes_no_more_than_it_may() {
    // In a process of its own, as other tests take memory as well.
    let test = "compute::ops::tests::parquet::hostile::what_claims_too_much_is_refused";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{printed}");
    let grown = printed.lines().find_map(|line| line.strip_prefix("grown by ")?.strip_suffix(" KiB"));
    let grown: u64 = grown.unwrap_or_else(|| panic!("{printed}")).parse().unwrap();
    assert!(grown < 32 << 10, "{grown} KiB, of files that claim gigabytes and tasks that may have 32 MiB");
}

#[test]
fn a_task_that_only_counts_nulls_ends_in_time() {
    let values = i64::from(i32::MAX);
    let levels = [unsigned((1 << 32) - 2), vec![0]].concat();
    let levels = [u32::try_from(levels.len()).unwrap().to_le_bytes().to_vec(), levels].concat();
    let rows: Vec<u8> = (0..60).flat_map(|_| page(9, values, 0, &levels)).collect();
    let file = File { rows: values * 60, ..File::optional(rows) };
    let task = task("analyze", &[REPORT], &[&file.bytes()]);
    let error = run(&task, &context(1), &Cancel::after(Duration::from_millis(200))).unwrap_err();
    assert_eq!(error.reason, FailReason::WallLimit, "{error}");
}

/// Valid files with some bytes changed: a result or a failure of the task.
#[test]
fn whatever_is_changed_in_a_file_the_task_ends() {
    let given = std::env::var("OMNIMESH_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds: Vec<u64> = given.map_or((0..3000).collect(), |seed| vec![seed]);
    let (columns, _) = table(400, 5);
    let written = [
        (Compression::UNCOMPRESSED, WriterVersion::PARQUET_1_0),
        (Compression::SNAPPY, WriterVersion::PARQUET_2_0),
        (Compression::GZIP(Default::default()), WriterVersion::PARQUET_1_0),
        (Compression::ZSTD(Default::default()), WriterVersion::PARQUET_2_0),
        (Compression::LZ4_RAW, WriterVersion::PARQUET_1_0),
    ];
    let files = written.map(|(codec, version)| {
        let properties = properties().set_compression(codec).set_writer_version(version);
        file(TABLE, &columns, 150, properties.set_data_page_size_limit(500))
    });
    let mut outcomes = [0, 0];
    for seed in &seeds {
        let replay = format!(
            "seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-node whatever_is_changed_in_a_file"
        );
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(*seed);
        let mut below = |most: usize| usize::try_from(rng.next_u64() % most as u64).unwrap();
        let mut bytes = files[below(files.len())].clone();
        let tail = &bytes[bytes.len() - 8..bytes.len() - 4];
        let footer = bytes.len() - 8 - usize::try_from(u32::from_le_bytes(tail.try_into().unwrap())).unwrap();
        for _ in 0..=below(4) {
            let length = bytes.len();
            // As often in the footer as in all pages; where it ends last of all.
            let place = if below(2) == 0 { 4 + below(footer - 4) } else { footer + below(length - footer) };
            let place = place.min(length - 1);
            match below(6) {
                0 | 1 => bytes[place] ^= 1 << below(8),
                2 => bytes[place] = u8::try_from(below(256)).unwrap(),
                3 => bytes[place] = [0, 0xff, 0x7f, 0x80][below(4)],
                // Lengths that grow.
                4 => bytes[place..].iter_mut().take(4).for_each(|byte| *byte |= 0x80),
                _ => {
                    let from = below(length);
                    let many = (1 + below(30)).min(length - from.max(place));
                    bytes.copy_within(from..from + many, place);
                }
            }
        }
        let error = match attempt(&bytes) {
            Ok(_) => {
                outcomes[0] += 1;
                continue;
            }
            Err(error) => error,
        };
        let is_right = matches!(error.reason, FailReason::BadInput | FailReason::MemoryLimit);
        assert!(is_right, "{error}: {replay}");
        outcomes[1] += 1;
    }
    assert!(seeds.len() == 1 || outcomes.iter().all(|count| *count > 200), "both happen: {outcomes:?}");
}
