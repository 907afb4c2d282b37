//! One UDP question per millisecond to an address, each with its number; what stays unanswered is
//! an outage.

use super::stall::go_first_as_a_probe;
use super::{Metronome, TICK, Window};
use crate::namespace::Namespace;
use crate::{Error, Result};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An answer that comes later than this is none: it waited in a queue while the address was gone.
pub const ANSWER_MAX: Duration = Duration::from_millis(100);

/// A question stands for the time until the next one, but not for more than this: when the probe
/// itself had to wait for the processor, nobody asked.
const STANDS_MAX: Duration = Duration::from_millis(5);

/// One question.
#[derive(Clone, Copy, Debug)]
struct Question {
    sent: Instant,
    answered: Option<Duration>,
    by: u8,
}

/// What a window of the stream looks like.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Questions asked.
    pub sent: usize,
    /// Questions without an answer in time.
    pub lost: usize,
    /// The longest stretch without an answer.
    pub outage: Duration,
    /// All such stretches together.
    pub outage_sum: Duration,
    /// The median time to an answer.
    pub round_trip: Duration,
    /// Who answered, in order of appearance.
    pub by: Vec<String>,
}

#[derive(Debug, Default)]
struct Log {
    questions: Vec<Question>,
    answerers: Vec<String>,
}

/// The stream; it ends when dropped.
#[derive(Debug)]
pub struct UdpProbe {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpProbe {
    /// Asks an echo from inside a namespace, from now on.
    pub fn start(inside: &Namespace, to: SocketAddr) -> Result<Self> {
        let any: SocketAddr =
            if to.is_ipv4() { ([0u8; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = inside
            .enter(|| {
                // Not connected: an ICMP error of one moment must not end the stream.
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?
            .map_err(Error::system(format!("open a probe of {to}")))?;
        let log = Arc::new(Mutex::new(Log::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_log, its_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = Some(inside.spawn("udp probe", move || {
            go_first_as_a_probe();
            let mut metronome = Metronome::new(TICK);
            while !its_stop.load(Ordering::Relaxed) {
                // An answer counts from when it came, not from the next question.
                let asks = metronome.wait_or_read(&socket);
                let mut log = its_log.lock().unwrap_or_else(PoisonError::into_inner);
                log.hear(&socket, to);
                if asks {
                    log.ask(&socket, to);
                }
            }
        })?);
        Ok(Self { log, stop, thread })
    }

    /// What the client saw in a window. Answers to its last questions may take until `ANSWER_MAX`
    /// after its end.
    pub fn figures(&self, window: Window) -> Figures {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).figures(window)
    }

    /// When the client first had an answer of somebody else than `name`, to a question of a window.
    pub fn first_answer_not_by(&self, name: &str, window: Window) -> Option<Instant> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let known = log.answerers.iter().position(|n| n == name);
        let of_other = |q: &&Question| known != Some(usize::from(q.by)) && window.holds(q.sent);
        let heard = |q: &Question| q.answered.map(|took| q.sent + took);
        log.questions.iter().filter(of_other).filter_map(heard).min()
    }

    /// When the last question of a window was asked that `name` answered.
    pub fn last_answer_by(&self, name: &str, window: Window) -> Option<Instant> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let place = log.answerers.iter().position(|n| n == name)?;
        let of_it = |q: &&Question| {
            q.answered.is_some() && usize::from(q.by) == place && window.holds(q.sent)
        };
        log.questions.iter().rev().find(of_it).map(|q| q.sent)
    }

    /// When the first question of a window was asked that stayed without an answer.
    pub fn first_lost(&self, window: Window) -> Option<Instant> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |q: &&Question| q.answered.is_none() && window.holds(q.sent);
        log.questions.iter().find(lost).map(|q| q.sent)
    }

    /// For how long every question has been answered, up to now.
    pub fn well_for(&self) -> Duration {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // The youngest questions have not had the time for an answer.
        let due = |q: &&Question| Duration::from_millis(20) < now - q.sent;
        let last_lost =
            log.questions.iter().rev().filter(due).find(|q| q.answered.is_none()).map(|q| q.sent);
        let start = log.questions.first().map_or(now, |q| q.sent);
        now - last_lost.unwrap_or(start)
    }
}

impl Drop for UdpProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Log {
    fn ask(&mut self, socket: &UdpSocket, to: SocketAddr) {
        let number = self.questions.len() as u64;
        self.questions.push(Question { sent: Instant::now(), answered: None, by: 0 });
        // No route or no carrier: the question counts, and stays without an answer.
        let _unsent = socket.send_to(&number.to_be_bytes(), to);
    }

    fn hear(&mut self, socket: &UdpSocket, to: SocketAddr) {
        let mut bytes = [0; 128];
        loop {
            match socket.recv_from(&mut bytes) {
                Ok((length, from)) if from == to && 8 <= length => {
                    let (number, name) = bytes[..length].split_at(8);
                    let number = u64::from_be_bytes(number.try_into().unwrap_or_default());
                    let by = self.answerer(&String::from_utf8_lossy(name));
                    let place = usize::try_from(number).unwrap_or(usize::MAX);
                    if let Some(question) = self.questions.get_mut(place) {
                        let took = question.sent.elapsed();
                        if question.answered.is_none() && took <= ANSWER_MAX {
                            question.answered = Some(took);
                            question.by = by;
                        }
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // An ICMP error that belongs to an earlier question: read on.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    fn answerer(&mut self, name: &str) -> u8 {
        let known = self.answerers.iter().position(|n| n == name);
        let place = known.unwrap_or_else(|| {
            self.answerers.push(name.to_owned());
            self.answerers.len() - 1
        });
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    fn figures(&self, window: Window) -> Figures {
        let mut figures = Figures::default();
        let mut round_trips = Vec::new();
        let mut outage = Duration::ZERO;
        let asked: Vec<&Question> =
            self.questions.iter().filter(|q| window.holds(q.sent)).collect();
        let next = asked.iter().skip(1).map(|q| q.sent).chain([window.to]);
        for (question, next) in asked.iter().zip(next) {
            figures.sent += 1;
            if let Some(took) = question.answered {
                round_trips.push(took);
                outage = Duration::ZERO;
                if let Some(name) = self.answerers.get(usize::from(question.by))
                    && !figures.by.contains(name)
                {
                    figures.by.push(name.clone());
                }
            } else {
                let stands = (next - question.sent).min(STANDS_MAX);
                figures.lost += 1;
                outage += stands;
                figures.outage_sum += stands;
                figures.outage = figures.outage.max(outage);
            }
        }
        figures.round_trip = super::median(&round_trips);
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(start: Instant, pattern: &str) -> Log {
        let questions = pattern.chars().enumerate().map(|(i, c)| Question {
            sent: start + TICK * u32::try_from(i).unwrap(),
            answered: (c == '+').then_some(TICK),
            by: 0,
        });
        Log { questions: questions.collect(), answerers: vec!["web1".to_owned()] }
    }

    #[test]
    fn an_outage_is_the_longest_run_of_lost_questions() {
        let start = Instant::now();
        for (pattern, lost, outage, sum) in [
            ("++++", 0, 0, 0),
            ("+-++", 1, 1, 1),
            ("+---+-+", 4, 3, 4),
            ("---+", 3, 3, 3),
            ("+--", 2, 2, 2),
            ("", 0, 0, 0),
        ] {
            let to = start + TICK * u32::try_from(pattern.len()).unwrap();
            let figures = log(start, pattern).figures(Window { from: start, to });
            let seen = (figures.lost, figures.outage, figures.outage_sum);
            let ms = Duration::from_millis;
            assert_eq!(seen, (lost, ms(outage), ms(sum)), "{pattern}");
        }
    }

    #[test]
    fn a_probe_that_had_to_wait_itself_saw_no_outage_of_that_time() {
        let start = Instant::now();
        let mut log = log(start, "+-+");
        log.questions[2].sent = start + 500 * TICK;
        let figures = log.figures(Window { from: start, to: start + 501 * TICK });
        assert_eq!((figures.lost, figures.outage), (1, STANDS_MAX));
    }
}
