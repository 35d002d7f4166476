//! Thresholds of the machine's resources, as the kubelet's `--eviction-hard` has them: below one the node is under pressure,
//! and what it names is kept back from pods. Pure: sizes are given.
//!
//! Images are kept in the data directory, so `nodefs` and `imagefs` are the same file system here, and both thresholds are
//! held against it: the stricter one counts, as on a machine of the kubelet's that has one disk.

use std::{collections::BTreeMap, num::ParseFloatError, str::FromStr};

use coracle_api::quantity::{Amount, QuantityError};

use crate::conditions::{Readings, Share};

/// What holds where nothing else is said. Of memory it is the kubelet's own default. Its shares of the disk
/// (`DefaultEvictionHard`: 10 % and 15 %) are for machines that are a cluster's alone; on a box that does other work too,
/// and whose disk is mostly full, they would keep every pod away while there are gigabytes left.
pub const DEFAULT_EVICTION_HARD: &str =
    "memory.available<100Mi,nodefs.available<500Mi,nodefs.inodesFree<2%,imagefs.available<500Mi,imagefs.inodesFree<2%";

/// Thresholds by signal. What is named replaces all defaults, so that a signal that is not named has none.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionHard {
    thresholds: BTreeMap<Signal, Threshold>,
}

impl Default for EvictionHard {
    fn default() -> Self {
        DEFAULT_EVICTION_HARD.parse().expect("the constant above is a list of thresholds")
    }
}

/// Why a text is no list of thresholds, in the kubelet's words.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ThresholdError {
    /// A part has no `<`.
    #[error("malformed pair, expect string<string")]
    Malformed,
    /// A name that is no signal.
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    /// A share below nothing.
    #[error("eviction percentage threshold {0} must be >= 0%: {1}")]
    Negative(String, String),
    /// A share above all.
    #[error("eviction percentage threshold {0} must be <= 100%: {1}")]
    Excessive(String, String),
    /// A share that is no number.
    #[error("{0:?}: {1}")]
    Percentage(String, ParseFloatError),
    /// An amount of nothing or less.
    #[error("eviction threshold {0} must be positive: {1}")]
    NotPositive(String, Amount),
    /// A text that is no amount.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

/// What a threshold is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
    /// What the kubelet takes and sets aside: it derives these itself.
    Derived,
}

impl Signal {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "memory.available" => Self::MemoryAvailable,
            "nodefs.available" => Self::NodefsAvailable,
            "nodefs.inodesFree" => Self::NodefsInodesFree,
            "imagefs.available" => Self::ImagefsAvailable,
            "imagefs.inodesFree" => Self::ImagefsInodesFree,
            "pid.available" => Self::PidAvailable,
            "containerfs.available" | "containerfs.inodesFree" | "allocatableMemory.available" => Self::Derived,
            _ => return None,
        })
    }
}

/// The least there has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Threshold {
    /// In the signal's own unit.
    Amount(u64),
    /// Of the whole, from 0 to 1.
    Fraction(f64),
}

impl Threshold {
    /// `None` is none: the kubelet passes over `0%` and `100%`.
    fn parse(signal: &str, value: &str) -> Result<Option<Self>, ThresholdError> {
        let Some(percent) = value.strip_suffix('%') else {
            let amount = Amount::parse(value)?;
            if amount.is_negative() || amount.is_zero() {
                return Err(ThresholdError::NotPositive(signal.to_owned(), amount));
            }
            return Ok(Some(Self::Amount(amount.value().unsigned_abs())));
        };
        if value == "0%" || value == "100%" {
            return Ok(None);
        }
        let percent =
            percent.parse::<f64>().map_err(|error| ThresholdError::Percentage(percent.to_owned(), error))? / 100.0;
        match percent {
            below if below < 0.0 => Err(ThresholdError::Negative(signal.to_owned(), value.to_owned())),
            // What is no number is within no bounds.
            within if within <= 1.0 => Ok(Some(Self::Fraction(within))),
            _ => Err(ThresholdError::Excessive(signal.to_owned(), value.to_owned())),
        }
    }

    /// The least of a whole, in the whole's unit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a size; the kubelet counts it in floating point too"
    )]
    fn of(self, total: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Fraction(fraction) => (total as f64 * fraction) as u64,
        }
    }
}

impl FromStr for EvictionHard {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut thresholds = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('<').ok_or(ThresholdError::Malformed)?;
            let (name, value) = (name.trim(), value.trim());
            let signal = Signal::parse(name).ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
            match Threshold::parse(name, value)? {
                Some(threshold) => thresholds.insert(signal, threshold),
                None => thresholds.remove(&signal),
            };
        }
        thresholds.remove(&Signal::Derived);
        Ok(Self { thresholds })
    }
}

impl EvictionHard {
    /// Whether memory is short.
    pub(crate) fn memory_pressure(&self, readings: &Readings) -> bool {
        self.met(Signal::MemoryAvailable, readings.memory)
    }

    /// Whether the disk is short of bytes or of inodes.
    pub(crate) fn disk_pressure(&self, readings: &Readings) -> bool {
        use Signal::{ImagefsAvailable, ImagefsInodesFree, NodefsAvailable, NodefsInodesFree};
        [NodefsAvailable, ImagefsAvailable].into_iter().any(|signal| self.met(signal, readings.disk))
            || [NodefsInodesFree, ImagefsInodesFree].into_iter().any(|signal| self.met(signal, readings.inodes))
    }

    /// Whether process numbers are short.
    pub(crate) fn pid_pressure(&self, readings: &Readings) -> bool {
        self.met(Signal::PidAvailable, readings.processes)
    }

    /// Memory for pods, in bytes, of a machine with so much: what is kept back is what pressure is told at.
    pub(crate) fn allocatable_memory_bytes(&self, total: u64) -> u64 {
        self.rest(Signal::MemoryAvailable, total)
    }

    /// Disk for pods, in bytes. As with the kubelet, the threshold of images keeps nothing back.
    pub(crate) fn allocatable_disk_bytes(&self, total: u64) -> u64 {
        self.rest(Signal::NodefsAvailable, total)
    }

    fn rest(&self, signal: Signal, total: u64) -> u64 {
        total.saturating_sub(self.thresholds.get(&signal).map_or(0, |threshold| threshold.of(total)))
    }

    /// What cannot be read, and what is not counted, such as the inodes of some file systems, is neither short nor plenty.
    fn met(&self, signal: Signal, read: Option<Share>) -> bool {
        let (Some(threshold), Some(share)) = (self.thresholds.get(&signal), read) else { return false };
        share.total > 0 && share.free < threshold.of(share.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<EvictionHard, String> {
        text.parse().map_err(|error: ThresholdError| error.to_string())
    }

    #[test]
    fn lists_are_read_as_the_kubelet_reads_them() {
        let only = |signal, threshold| Ok(EvictionHard { thresholds: BTreeMap::from([(signal, threshold)]) });
        let none = || Ok(EvictionHard { thresholds: BTreeMap::new() });
        assert_eq!(parsed("memory.available<100Mi"), only(Signal::MemoryAvailable, Threshold::Amount(100 << 20)));
        assert_eq!(parsed(" nodefs.available < 10% ,"), only(Signal::NodefsAvailable, Threshold::Fraction(0.1)));
        assert_eq!(parsed("pid.available<1k"), only(Signal::PidAvailable, Threshold::Amount(1000)));
        assert_eq!(
            parsed("nodefs.available<5%,nodefs.available<1"),
            only(Signal::NodefsAvailable, Threshold::Amount(1))
        );
        assert_eq!(parsed("nodefs.available<5%,nodefs.available<0%"), none());
        assert_eq!(parsed("imagefs.available<0%,imagefs.inodesFree<100%"), none());
        assert_eq!(parsed(""), none(), "a list that is empty takes the defaults away");
        assert_eq!(parsed("containerfs.available<10%,containerfs.inodesFree<1"), none(), "said, and set aside");
    }

    #[test]
    fn what_is_wrong_is_told_in_the_kubelets_words() {
        let wrong = |text: &str, message: &str| assert_eq!(parsed(text), Err(message.to_owned()), "{text}");
        wrong("memory.available", "malformed pair, expect string<string");
        wrong("memory.available=1Gi", "malformed pair, expect string<string");
        wrong("disk.available<1Gi", "unsupported eviction signal disk.available");
        wrong("<1Gi", "unsupported eviction signal ");
        wrong("nodefs.available<-5%", "eviction percentage threshold nodefs.available must be >= 0%: -5%");
        wrong("nodefs.available<101%", "eviction percentage threshold nodefs.available must be <= 100%: 101%");
        wrong("nodefs.available<nan%", "eviction percentage threshold nodefs.available must be <= 100%: nan%");
        wrong("nodefs.available<x%", "\"x\": invalid float literal");
        wrong("memory.available<0", "eviction threshold memory.available must be positive: 0");
        wrong("memory.available<-1Gi", "eviction threshold memory.available must be positive: -1Gi");
        let regular = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        wrong("memory.available<plenty", regular);
    }

    #[test]
    fn one_file_system_is_held_against_both_of_its_thresholds() {
        let readings = |free| Readings { disk: Some(Share { total: 1000, free }), ..Readings::default() };
        let inodes = |free| Readings { inodes: Some(Share { total: 1000, free }), ..Readings::default() };
        let shares = parsed("nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%").unwrap();
        assert!(shares.disk_pressure(&readings(149)), "of images 15 %");
        assert!(!shares.disk_pressure(&readings(150)));
        assert!(shares.disk_pressure(&inodes(49)));
        assert!(!shares.disk_pressure(&inodes(50)));
        let big = |free| Readings { disk: Some(Share { total: 1 << 40, free }), ..Readings::default() };
        let default = EvictionHard::default();
        assert!(default.disk_pressure(&big((500 << 20) - 1)) && !default.disk_pressure(&big(500 << 20)));
        let tiny = parsed("nodefs.available<1,imagefs.available<1").unwrap();
        assert!(!tiny.disk_pressure(&readings(1)) && tiny.disk_pressure(&readings(0)));
        assert!(!tiny.disk_pressure(&inodes(0)), "not named");
        assert!(!parsed("").unwrap().disk_pressure(&readings(0)));
    }

    #[test]
    fn thresholds_are_kept_back_from_pods() {
        let default = EvictionHard::default();
        assert_eq!(default.allocatable_memory_bytes(1 << 30), (1 << 30) - (100 << 20));
        assert_eq!(default.allocatable_memory_bytes(1 << 20), 0);
        assert_eq!(default.allocatable_disk_bytes(1 << 30), (1 << 30) - (500 << 20));
        let own = parsed("memory.available<25%,nodefs.available<100").unwrap();
        assert_eq!((own.allocatable_memory_bytes(1000), own.allocatable_disk_bytes(1000)), (750, 900));
        let none = parsed("imagefs.available<50%").unwrap();
        assert_eq!((none.allocatable_memory_bytes(1000), none.allocatable_disk_bytes(1000)), (1000, 1000));
    }
}
