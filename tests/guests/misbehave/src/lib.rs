//! A program that goes wrong in the way its first argument names: `trap`, `panic`, `exit N`, `spin`, `allocate [MIB]`,
//! `sleep [SECONDS]`, `crash-after SECONDS`, `print N`, `partial TEXT`, `tick [N]`.

use wasip2::cli::environment::get_arguments;
use wasip2::cli::exit::exit_with_code;
use wasip2::cli::{stderr::get_stderr, stdout::get_stdout};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::streams::OutputStream;

/// The exit code for words that mean nothing here, as a shell's builtins have it.
const USAGE: u8 = 2;

struct Misbehave;

wasip2::cli::command::export!(Misbehave);

impl wasip2::exports::cli::run::Guest for Misbehave {
    fn run() -> Result<(), ()> {
        let args = get_arguments();
        // The program's own name comes first where the command has one.
        let at = args.iter().position(|word| MODES.iter().any(|(mode, _)| mode == word));
        let Some(at) = at else {
            say(&get_stderr(), &format!("misbehave: no mode in {args:?}"));
            exit_with_code(USAGE);
            return Err(());
        };
        let run = MODES.iter().find(|(mode, _)| *mode == args[at]).map(|(_, run)| run).expect("it was found above");
        run(args.get(at + 1).map(String::as_str))
    }
}

type Mode = fn(Option<&str>) -> Result<(), ()>;

const MODES: [(&str, Mode); 10] = [
    ("trap", |_| core::arch::wasm32::unreachable()),
    ("panic", |_| panic!("as asked")),
    ("exit", |code| {
        exit_with_code(number(code, 1) as u8);
        Ok(())
    }),
    ("spin", |_| spin()),
    ("allocate", allocate),
    ("sleep", |seconds| {
        sleep(number(seconds, u64::from(u32::MAX)));
        Ok(())
    }),
    ("crash-after", |seconds| {
        say(&get_stdout(), "misbehave: up");
        sleep(number(seconds, 1));
        say(&get_stderr(), "misbehave: going down");
        Err(())
    }),
    ("print", |lines| {
        let out = get_stdout();
        (1..=number(lines, 1)).for_each(|line| say(&out, &format!("line {line}")));
        Ok(())
    }),
    ("partial", |text| {
        let _ = get_stdout().blocking_write_and_flush(text.unwrap_or("partial").as_bytes());
        Ok(())
    }),
    ("tick", |lines| {
        let (out, lines) = (get_stdout(), number(lines, u64::MAX));
        for line in 1..=lines {
            say(&out, &format!("tick {line}"));
            sleep(1);
        }
        Ok(())
    }),
];

fn number(text: Option<&str>, otherwise: u64) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Never ends and never calls the host.
fn spin() -> Result<(), ()> {
    let mut turns: u64 = 0;
    loop {
        turns = core::hint::black_box(turns.wrapping_add(1));
    }
}

/// Takes memory, a MiB at a time, and uses it, up to so many MiB or to the end.
fn allocate(limit: Option<&str>) -> Result<(), ()> {
    let mut held = Vec::new();
    for mib in 1..=number(limit, u64::MAX) {
        held.push(core::hint::black_box(vec![1_u8; 1024 * 1024]));
        if mib % 16 == 0 {
            say(&get_stdout(), &format!("misbehave: holds {mib} MiB"));
        }
    }
    sleep(u64::from(u32::MAX));
    drop(held);
    Ok(())
}

fn sleep(seconds: u64) {
    subscribe_duration(seconds.saturating_mul(1_000_000_000)).block();
}

fn say(stream: &OutputStream, line: &str) {
    for chunk in format!("{line}\n").as_bytes().chunks(4096) {
        let _ = stream.blocking_write_and_flush(chunk);
    }
}
