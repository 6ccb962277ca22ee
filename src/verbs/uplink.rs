//! `tap32 uplink list | drain NAME | restore NAME`: takes an uplink out of the fabric and back without a lost packet,
//! through FRR's vtysh. It changes only FRR's running configuration: a restart of FRR brings the uplink back.
//!
//! `fabric/drain.rs` has the commands, `fabric/uplinks.rs` judges what FRR shows; here is when which step is done.

use std::io::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Common, Report};
use crate::config::{Config, FabricProtocol, Uplink};
use crate::fabric::answers::{self, bgp};
use crate::fabric::drain;
use crate::fabric::uplinks::{State, carried_without, states};
use crate::fabric::vtysh::{self, ask, ask_all};
use crate::kernel::Kernel;
use crate::machine::lock::{self, Lock};
use crate::machine::log::Action;
use crate::text::{self, PLAIN, printable};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// How each uplink stands.
    List {
        /// Print JSON.
        json: bool,
    },
    /// Take this uplink out of the fabric.
    Drain(String),
    /// Bring it back.
    Restore(String),
}

/// Held while an uplink is drained or restored.
const LOCK: &str = "tap32/uplink";

/// How often to look, and for how long at most.
const POLL: Duration = Duration::from_millis(200);
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// The other routers' time to hear of it and to act: FRR recomputes external routes 1 s after its SPF
/// (OSPF_ASE_CALC_INTERVAL, ospfd/ospf_ase.h).
const SPREAD: Duration = Duration::from_secs(2);

/// Packets a second that arrive on an idle uplink besides BFD's: hellos, keepalives, ARP, LLDP.
const CHATTER: u64 = 10;

/// # Errors
/// FRR does not answer, or the uplink cannot be drained or restored.
pub(crate) fn run(request: &Request, common: &Common) -> Result<Report> {
    let config = common.config()?;
    let uplinks = Uplinks { config: &config, kernel: Kernel::open()?, dry_run: common.dry_run };
    let (verb, name) = match request {
        Request::List { json } => return uplinks.list(*json).map(Report::from).context("uplink list"),
        Request::Drain(name) => ("drain", name),
        Request::Restore(name) => ("restore", name),
    };
    let action = Action { action: verb.to_owned(), uplink: Some(name.clone()), ..Action::default() };
    let result = match alone(common.dry_run) {
        Ok(_lock) if verb == "drain" => uplinks.drain(name),
        Ok(_lock) => uplinks.restore(name),
        Err(error) => Err(error),
    };
    common.log.finish(&action, result).with_context(|| format!("uplink {verb} {name}"))?;
    Ok(Report::default())
}

/// Two at once could each count on the uplink that the other drains.
fn alone(dry_run: bool) -> Result<Option<Lock>> {
    if dry_run {
        return Ok(None);
    }
    let Some(lock) = Lock::take(LOCK, 0)? else {
        let process = match lock::holder(LOCK)?.and_then(|holder| holder.pid) {
            Some(pid) => format!("process {pid}"),
            None => "in another pid namespace".to_owned(),
        };
        bail!("another `tap32 uplink` is running ({process}): drain and restore one at a time")
    };
    Ok(Some(lock))
}

struct Uplinks<'a> {
    config: &'a Config,
    kernel: Kernel,
    dry_run: bool,
}

impl Uplinks<'_> {
    fn list(&self, json: bool) -> Result<String> {
        let states = self.look()?;
        Ok(if json { serde_json::json!({ "uplinks": states }).to_string() + "\n" } else { table(&states) })
    }

    fn drain(&self, name: &str) -> Result<&'static str> {
        let uplink = self.uplink(name)?;
        if let Err(others) = carried_without(&self.look()?, name) {
            bail!(
                "no other uplink has its neighbour Full or Established with BFD up and routes over it ({others}): fix \
                 another uplink first, `tap32 uplink list` shows them"
            );
        }
        self.check_policy(uplink)?;
        let steps = drain::drain(self.config, uplink)?;
        for (i, commands) in steps.iter().enumerate() {
            self.say(commands)?;
            if self.dry_run {
                continue;
            }
            if self.is_in_service(name)? {
                // FRR 8.4 obeys the second time.
                self.say(commands)?;
                ensure!(
                    !self.is_in_service(name)?,
                    "FRR accepted the command but the uplink is still in service; nothing was drained"
                );
            }
            self.wait_until_idle(uplink, i + 1 == steps.len())?;
        }
        if self.dry_run {
            return Ok("dry-run");
        }
        print(&format!("{name} is drained: nothing is routed over it; `tap32 uplink restore {name}` brings it back"));
        Ok("done")
    }

    fn restore(&self, name: &str) -> Result<&'static str> {
        let uplink = self.uplink(name)?;
        self.check_policy(uplink)?;
        let limit = Instant::now() + RESTORE_LIMIT;
        // FRR 8.4 loses the `ip ospf passive` that comes after a `no ip ospf passive` too many.
        if !self.is_in_service(name)? {
            self.take_back(uplink)?;
        }
        if self.dry_run {
            return Ok("dry-run");
        }
        self.wait_for(uplink, limit, "a neighbour that is Full or Established with BFD up", State::carries)?;
        let state = self.wait_for(uplink, limit, "routes over the uplink", State::is_routed_over)?;
        print(&state.describe());
        Ok("done")
    }

    fn is_in_service(&self, name: &str) -> Result<bool> {
        Ok(of(&self.look()?, name)?.is_in_service())
    }

    fn check_policy(&self, uplink: &Uplink) -> Result<()> {
        if self.config.fabric.protocol == FabricProtocol::Ospf {
            return Ok(());
        }
        let running = ask(&answers::RUNNING)?.context(NO_VTYSH)?;
        let neighbours = ask(&bgp::NEIGHBOURS)?.context(NO_VTYSH)?;
        drain::check_bgp_maps(uplink, &running, &neighbours)
    }

    /// Waits until no route uses the uplink, the other routers have heard of it, and almost no packets arrive on it.
    fn wait_until_idle(&self, uplink: &Uplink, ends_session: bool) -> Result<()> {
        let limit = Instant::now() + DRAIN_LIMIT;
        loop {
            self.wait_while(uplink, limit, |state| state.routes > 0 || (ends_session && state.is_adjacent()))?;
            let start = Instant::now();
            let before = self.kernel.traffic_over(&uplink.name)?.received;
            self.wait_while(uplink, limit + SPREAD, |_| start.elapsed() < SPREAD)?;
            let received = self.kernel.traffic_over(&uplink.name)?.received.saturating_sub(before);
            if received <= (CHATTER + self.bfd_packets()) * SPREAD.as_secs() {
                return Ok(());
            }
        }
    }

    /// Polls while `is_so`, but not beyond `limit`. As soon as no other uplink carries traffic, this one is taken back.
    fn wait_while(&self, uplink: &Uplink, limit: Instant, is_so: impl Fn(&State) -> bool) -> Result<()> {
        let name = &uplink.name;
        loop {
            let states = self.look()?;
            if let Err(others) = carried_without(&states, name) {
                self.take_back(uplink)?;
                bail!("no other uplink carries traffic any more ({others}), so it was taken back into service");
            }
            let state = of(&states, name)?;
            if !is_so(state) {
                return Ok(());
            }
            ensure!(
                Instant::now() < limit,
                "still carrying traffic after {} s ({}); partly drained: `tcpdump -ni {name}` shows the traffic, \
                 `tap32 uplink restore {name}` takes the uplink back",
                DRAIN_LIMIT.as_secs(),
                state.describe()
            );
            sleep(POLL);
        }
    }

    /// Polls until `is_there`, but not beyond `limit`.
    fn wait_for(&self, uplink: &Uplink, limit: Instant, what: &str, is_there: fn(&State) -> bool) -> Result<State> {
        loop {
            let states = self.look()?;
            let state = of(&states, &uplink.name)?;
            if is_there(state) {
                return Ok(state.clone());
            }
            ensure!(
                Instant::now() < limit,
                "waited {} s in vain for {what} ({}): check the switch's end, {}",
                RESTORE_LIMIT.as_secs(),
                state.describe(),
                uplink.switch_port.as_deref().unwrap_or("its port")
            );
            sleep(POLL);
        }
    }

    /// BFD's packets a second; jitter can add a third (RFC 5880, 6.8.7).
    fn bfd_packets(&self) -> u64 {
        4000 / 3 / u64::from(self.config.fabric.bfd.interval_ms.max(1))
    }

    fn take_back(&self, uplink: &Uplink) -> Result<()> {
        for commands in drain::restore(self.config, uplink)? {
            self.say(&commands)?;
        }
        Ok(())
    }

    /// Prints a vtysh command line for a shell, and runs it.
    fn say(&self, commands: &[String]) -> Result<()> {
        print(&vtysh::command_line(commands));
        if !self.dry_run {
            vtysh::vtysh(commands)?.context(NO_VTYSH)?;
        }
        Ok(())
    }

    fn uplink(&self, name: &str) -> Result<&Uplink> {
        let uplinks = self.config.uplinks()?;
        uplinks.iter().find(|uplink| uplink.name == name).with_context(|| {
            let names: Vec<&str> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
            format!("the configuration has no uplink {name}, only {}", names.join(", "))
        })
    }

    /// All uplinks as FRR and the kernel have them now.
    fn look(&self) -> Result<Vec<State>> {
        let commands = answers::about_uplinks(self.config.fabric.protocol);
        let answers = ask_all(commands).context(NO_VTYSH)?;
        let mut states = states(self.config, &answers)?;
        for state in &mut states {
            state.routes = self.kernel.traffic_over(&state.uplink)?.routes;
        }
        Ok(states)
    }
}

fn of<'a>(states: &'a [State], name: &str) -> Result<&'a State> {
    states.iter().find(|state| state.uplink == name).context("the uplink is gone")
}

const NO_VTYSH: &str = "FRR is not installed (no vtysh), and only FRR knows the uplinks: `apt-get install frr`";

/// Aligned columns for people; the last says which are drained.
pub fn table(states: &[State]) -> String {
    let mut rows = vec![(["UPLINK", "PEER", "NEIGHBOUR", "BFD", "ROUTES", ""].map(str::to_owned), PLAIN)];
    rows.extend(states.iter().map(|state| {
        let (routes, drained) = (state.routes.to_string(), if state.drained { "drained" } else { "" });
        ([&state.uplink, &state.peer, &state.neighbour, &state.bfd, &routes, drained].map(str::to_owned), PLAIN)
    }));
    text::table(&rows, None)
}

/// Prints at once, because a drain takes seconds. A closed stdout does not stop the drain.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{}", printable(line));
}
