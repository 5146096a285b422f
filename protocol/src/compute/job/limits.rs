//! How much a job may say and ask for.

/// Most bytes of a [`JobSpec`](super::JobSpec): it has to fit an entry of the log. Blobs are named, not contained.
pub const SPEC_BYTES_MAX: usize = 32_768;
/// Most tasks in a file, before fan-out. Default: guess.
pub const TASKS_MAX: usize = 1024;
/// Most inputs in a file. Default: guess.
pub const INPUTS_MAX: usize = 256;
/// Most parameters of an operation. Default: guess.
pub const PARAMS_MAX: usize = 64;
/// Most labels of a task or worker. Default: guess.
pub const LABELS_MAX: usize = 32;
/// Most outputs that one task may read: an assignment names each of them, in 42 bytes.
pub const FAN_IN_MAX: u64 = 16_384;
/// Most sources of one task, each of them once. Default: guess; as many as there can be inputs.
pub const SOURCES_MAX: usize = 256;
/// Most that all tasks of a job may read together: of each, the outputs, and one for each source and for what it is fanned out
/// over. Default: guess; 1,000 tasks that read 1,000 outputs each are a sixteenth of it.
pub const READS_MAX: u64 = 1 << 24;
/// Most workers that may be asked for one task. Default: guess; more than seven honest ones are no more convincing.
pub const REDUNDANCY_MAX: u8 = 7;
/// Most retries. Default: guess.
pub const RETRIES_MAX: u8 = 20;
/// Longest name of a job, task, input, output, label or operation.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest deadline: 30 days. Default: guess.
pub const DEADLINE_S_MAX: u64 = 30 * 24 * 3600;

/// How much of a node's resources one job may ask for. Checked before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Tasks after fan-out. Default 100,000 (guess): each that has ended takes some 600 bytes on every node. Too low refuses fine
    /// fan-out (raise the chunk length), too high lets one job fill the memory.
    pub tasks_max: u64,
    /// CPU time of one attempt. Default 1 h (guess).
    pub cpu_ms_max: u64,
    /// Memory of one attempt. Default 4 GiB, all that a WebAssembly module of 32 bits can address.
    pub memory_bytes_max: u64,
    /// Output of one task. Default 1 GiB (guess).
    pub output_bytes_max: u64,
    /// Duration of one attempt. Default 2 h (guess).
    pub wall_ms_max: u64,
    /// Length of all inputs together. Default 1 TiB (guess).
    pub input_bytes_max: u64,
    /// What all tasks together may have to fetch, of inputs and programs, each once for each worker that is asked. Outputs of
    /// other tasks are not counted: nobody knows their length before, and `output_bytes_max` bounds it. Default 16 TiB (guess).
    /// Too low refuses jobs of which many tasks read all of an input, too high lets one job fill the links.
    pub transfer_bytes_max: u64,
}

impl Quota {
    /// The same on all nodes: what is beyond it cannot be written to the ledger. Each node may allow less.
    pub const MOST: Quota = Quota {
        tasks_max: 262_144,
        cpu_ms_max: u64::MAX,
        memory_bytes_max: u64::MAX,
        output_bytes_max: u64::MAX,
        wall_ms_max: u64::MAX,
        input_bytes_max: u64::MAX,
        transfer_bytes_max: u64::MAX,
    };
}

impl Default for Quota {
    fn default() -> Self {
        Quota {
            tasks_max: 100_000,
            cpu_ms_max: 3_600_000,
            memory_bytes_max: 4 << 30,
            output_bytes_max: 1 << 30,
            wall_ms_max: 7_200_000,
            input_bytes_max: 1 << 40,
            transfer_bytes_max: 1 << 44,
        }
    }
}
