//! `peers LOG SCRATCH`: the job in one loop, without engine, state to save or anybody to write to.
//! Rows go to SCRATCH/rows.csv, what it took to the standard output, as JSON.
use hashbrown::{HashMap, HashSet};
use serde::Deserialize;
use std::fs::{read_to_string, File};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{BufWriter, Write};
use std::time::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

#[derive(Deserialize)]
struct Event<'a> {
    event: &'a str,
    ts: u64,
    placement_id: &'a str,
    play_id: &'a str,
    listener_id: Option<&'a str>,
    consent: Option<bool>,
}

/// Keys are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!()
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key
    }
}

type Hashed = BuildHasherDefault<Same>;

#[derive(Default)]
struct Cell {
    counts: [u32; 6],
    listeners: HashSet<u64, Hashed>,
}

const SPREAD: u64 = 0x9E3779B97F4A7C15;
const GATHER: u64 = 0xF1DE83E19937733D; // the inverse of SPREAD

fn cpu_s() -> f64 {
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) as f64
            + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) as f64 / 1e6
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let file = File::open(&arguments[1]).unwrap();
    let (at, before_s) = (Instant::now(), cpu_s());
    let log = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let mut seen: HashSet<u64, Hashed> = HashSet::default();
    let mut names: HashMap<u64, (u32, String), Hashed> = HashMap::default();
    let mut cells: HashMap<u64, Cell, Hashed> = HashMap::default();
    let mut from = 0;
    while from < log.len() {
        let to = memchr::memchr(b'\n', &log[from..]).map_or(log.len(), |i| from + i);
        let line = &log[from..to];
        from = to + 1;
        let Ok(event) = sonic_rs::from_slice::<Event>(line) else { continue };
        let kind = match event.event {
            "impression" => 0,
            "start" => 1,
            "firstQuartile" => 2,
            "midpoint" => 3,
            "thirdQuartile" => 4,
            "complete" => 5,
            _ => continue,
        };
        let place = xxh3_64(event.placement_id.as_bytes());
        if !seen.insert(xxh3_64_with_seed(event.play_id.as_bytes(), place ^ (kind as u64 + 1))) {
            continue;
        }
        let next = names.len() as u32;
        let number = names.entry(place).or_insert_with(|| (next, event.placement_id.to_string())).0;
        let key = ((number as u64) << 32 | event.ts / 60_000).wrapping_mul(SPREAD);
        let cell = cells.entry(key).or_default();
        cell.counts[kind] += 1;
        if kind < 2 && event.consent == Some(true) {
            if let Some(listener) = event.listener_id {
                cell.listeners.insert(xxh3_64(listener.as_bytes()));
            }
        }
    }
    let (seconds, used_s) = (at.elapsed().as_secs_f64(), cpu_s() - before_s);
    let by_number: HashMap<u32, &String> = names.values().map(|(number, name)| (*number, name)).collect();
    let mut out = BufWriter::new(File::create(format!("{}/rows.csv", arguments[2])).unwrap());
    for (key, cell) in &cells {
        let key = key.wrapping_mul(GATHER);
        let counts = cell.counts.map(|count| count.to_string()).join(",");
        let name = by_number[&((key >> 32) as u32)];
        writeln!(out, "{},{},{},{}", name, key & 0xffff_ffff, counts, cell.listeners.len()).unwrap();
    }
    let status = read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak_mib = peak.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0;
    println!("{{\"seconds\":{seconds:.6},\"cpu_s\":{used_s:.6},\"startup_s\":0,\"peak_mib\":{peak_mib:.1}}}");
}
