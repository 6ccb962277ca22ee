//! The lab's load: 16 flows (one source address each, so that ECMP spreads them), one ICMP echo each 10 ms.
//!
//!   probe TARGET     until stdin closes; then one JSON object on stdout
//!
//! `longest_gap_ms` is the longest time between two echoes, by when they were sent, that were answered one
//! after the other in a flow: 10 where nothing was lost. `lost` has the time of every lost echo since the
//! start, `window_ms` the time from the first to the last of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

const FLOWS: u8 = 16;
const INTERVAL: Duration = Duration::from_millis(10);
/// A reply that comes later is lost.
const LATE: Duration = Duration::from_secs(2);

static STOP: AtomicBool = AtomicBool::new(false);

/// Times in ms since the start, and whether the answer came, of each echo of one flow.
fn flow(number: u8, target: Ipv4Addr, start: Instant) -> Vec<(f64, bool)> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("a raw socket: run as root");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(172, 31, 0, number), 0).into()).expect("the source address");
    let target = SocketAddrV4::new(target, 0).into();
    let mut echoes: Vec<(f64, bool)> = Vec::new();
    // The flows are spread over the interval.
    let mut next = start + INTERVAL * u32::from(number) / u32::from(FLOWS);
    let mut stopped = None;
    loop {
        let now = Instant::now();
        if stopped.is_none() && STOP.load(Ordering::Relaxed) {
            stopped = Some(now);
        }
        match stopped {
            Some(at) if now - at > LATE || nothing_is_awaited(&echoes, now - start) => return echoes,
            None if now >= next => {
                // A host without a route answers ENETUNREACH at once: as good as lost.
                let _ = socket.send_to(&echo(number, echoes.len() as u16), &target);
                echoes.push(((now - start).as_secs_f64() * 1e3, false));
                next += INTERVAL;
            }
            _ => {}
        }
        let wait = next.saturating_duration_since(Instant::now()).clamp(Duration::from_micros(200), INTERVAL);
        socket.set_read_timeout(Some(wait)).expect("a read timeout");
        let mut buffer = [0; 256];
        if let Ok(length) = (&socket).read(&mut buffer)
            && let Some(sequence) = answer(&buffer[..length], number)
            && let Some(echo) = echoes.get_mut(usize::from(sequence))
        {
            echo.1 = true;
        }
    }
}

/// Whether all that were sent less than `LATE` ago have their answer.
fn nothing_is_awaited(echoes: &[(f64, bool)], now: Duration) -> bool {
    let late = now.saturating_sub(LATE).as_secs_f64() * 1e3;
    echoes.iter().rev().take_while(|(sent, _)| *sent > late).all(|(_, is_answered)| *is_answered)
}

fn echo(flow: u8, sequence: u16) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0x32, flow, 0, 0];
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[2..4].copy_from_slice(&folded.to_be_bytes());
    packet
}

/// The sequence number of an echo reply to this flow.
fn answer(packet: &[u8], flow: u8) -> Option<u16> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    match packet.get(header..header + 8)? {
        [0, 0, _, _, 0x32, id, high, low] if *id == flow => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

fn main() {
    let target: Ipv4Addr = std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("usage: probe TARGET");
    let start = Instant::now();
    let threads: Vec<_> = (1..=FLOWS).map(|n| std::thread::spawn(move || flow(n, target, start))).collect();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    STOP.store(true, Ordering::Relaxed);
    let flows: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a flow")).collect();

    let mut longest: f64 = 0.0;
    let mut lost = Vec::new();
    let mut per_flow = BTreeMap::new();
    for (number, echoes) in flows.iter().enumerate() {
        let answered: Vec<f64> = echoes.iter().filter(|echo| echo.1).map(|echo| echo.0).collect();
        let gap = answered.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        longest = longest.max(gap);
        lost.extend(echoes.iter().filter(|echo| !echo.1).map(|echo| echo.0));
        per_flow.insert(number + 1, json!({ "sent": echoes.len(), "answered": answered.len(), "gap_ms": gap }));
    }
    lost.sort_by(f64::total_cmp);
    let window = lost.last().unwrap_or(&0.0) - lost.first().unwrap_or(&0.0);
    println!(
        "{}",
        json!({
            "sent": flows.iter().map(Vec::len).sum::<usize>(),
            "lost_count": lost.len(),
            "longest_gap_ms": longest,
            "window_ms": window,
            "flows": per_flow,
            "lost": lost,
        })
    );
}
