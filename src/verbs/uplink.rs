//! `tap32 uplink list | drain NAME | restore NAME`: takes an uplink out of the fabric and back without a lost packet,
//! through FRR's vtysh. Changes FRR's running configuration only: a restart of FRR brings the uplink back.
//!
//! What to ask and say in either protocol is in `ospf` and `bgp`; here is in which order, and when it is done.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Common, Report};
use crate::config::{Config, FabricProtocol, Uplink};
use crate::fabric::answers::{self, Answers, bfd, bgp, ospf};
use crate::fabric::drain::{self, Phase};
use crate::fabric::render;
use crate::fabric::vtysh::{self, ask, ask_all};
use crate::kernel::Kernel;
use crate::machine::lock::{self, Lock};
use crate::machine::log::Action;
use crate::text::{self, PLAIN};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    List { json: bool },
    Drain(String),
    Restore(String),
}

/// How one uplink stands; the field names of `list --json` are a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    pub uplink: String,
    pub peer: String,
    /// The neighbour's state in FRR's words (Full, Established ...); `none` where there is no neighbour.
    pub neighbour: String,
    /// BFD's status in FRR's words; `none` where there is no session.
    pub bfd: String,
    pub drained: bool,
    /// Routes of the kernel that lead over it, its own subnet left out.
    pub routes: usize,
}

impl State {
    /// Whether the fabric's packets can be left to it.
    fn carries(&self) -> bool {
        self.is_in_service() && self.bfd == "up"
    }

    /// Whether they are: a switch that is new has its neighbour long before it has routes.
    fn is_routed_over(&self) -> bool {
        self.carries() && self.routes > 0
    }

    /// Nobody has drained it. Of one without a neighbour FRR may not tell.
    fn is_in_service(&self) -> bool {
        !self.drained && self.is_adjacent()
    }

    fn is_adjacent(&self) -> bool {
        matches!(self.neighbour.as_str(), "Full" | "Established")
    }

    fn describe(&self) -> String {
        let drained = if self.drained { "drained, " } else { "" };
        format!("{}: {drained}neighbour {}, BFD {}, {} routes", self.uplink, self.neighbour, self.bfd, self.routes)
    }
}

/// Of whoever drains or restores.
const LOCK: &str = "tap32/uplink";

/// How often is looked, and for how long at the most.
const POLL: Duration = Duration::from_millis(200);
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// How long the others may take to hear of it and to act: FRR recomputes external routes 1 s after its SPF
/// (OSPF_ASE_CALC_INTERVAL, FACTS.md), on one router after the other's flooding.
const SPREAD: Duration = Duration::from_secs(2);

/// Packets a second that an uplink gets besides BFD's without carrying anything: hellos, keepalives, ARP, LLDP.
const CHATTER: u64 = 10;

/// Runs one of the three.
pub async fn run(request: &Request, common: &Common) -> Result<Report> {
    let config = common.config()?;
    let uplinks = Uplinks { config: &config, kernel: Kernel::open()?, dry_run: common.dry_run };
    let (verb, name) = match request {
        Request::List { json } => return uplinks.list(*json).await.map(Report::from).context("uplink list"),
        Request::Drain(name) => ("drain", name),
        Request::Restore(name) => ("restore", name),
    };
    let action = Action { action: verb.to_owned(), uplink: Some(name.clone()), ..Action::default() };
    let result = match alone(common.dry_run) {
        Ok(_lock) if verb == "drain" => uplinks.drain(name).await,
        Ok(_lock) => uplinks.restore(name).await,
        Err(error) => Err(error),
    };
    common.log.finish(&action, result).with_context(|| format!("uplink {verb} {name}"))?;
    Ok(Report::default())
}

/// Two at once could each take the other's for the uplink that is left.
fn alone(dry_run: bool) -> Result<Option<Lock>> {
    if dry_run {
        return Ok(None);
    }
    let Some(lock) = Lock::take(LOCK)? else {
        match lock::holder(LOCK) {
            Some(pid) => {
                bail!("another `tap32 uplink` is at work, process {pid}: one at a time; try again when it is done")
            }
            None => bail!("{}", lock::squatted(LOCK)),
        }
    };
    Ok(Some(lock))
}

struct Uplinks<'a> {
    config: &'a Config,
    kernel: Kernel,
    dry_run: bool,
}

impl Uplinks<'_> {
    async fn list(&self, json: bool) -> Result<String> {
        let states = self.look().await?;
        if json {
            return Ok(serde_json::to_string(&serde_json::json!({ "uplinks": states })).context("JSON")? + "\n");
        }
        Ok(table(&states))
    }

    async fn drain(&self, name: &str) -> Result<&'static str> {
        let uplink = self.uplink(name)?;
        let states = self.look().await?;
        ensure!(
            carried_without(&states, name),
            "no other uplink has its neighbour Full or Established with BFD up and routes over it ({}), so nothing would be left: fix one \
             first, `tap32 uplink list` shows them",
            describe_others(&states, name)
        );
        self.check_policy(uplink).await?;
        for Phase { commands, ends_session } in drain::drain(self.config, uplink)? {
            self.say(&commands).await?;
            if self.dry_run {
                continue;
            }
            if self.is_in_service(name).await? {
                // As a person would: the second time FRR 8.4 does it.
                self.say(&commands).await?;
                ensure!(!self.is_in_service(name).await?, "FRR took this and did not do it: nothing is drained");
            }
            self.wait_until_idle(uplink, ends_session).await?;
        }
        if self.dry_run {
            return Ok("dry-run");
        }
        print(&format!("{name} is drained: nothing is routed over it; `tap32 uplink restore {name}` brings it back"));
        Ok("done")
    }

    async fn restore(&self, name: &str) -> Result<&'static str> {
        let uplink = self.uplink(name)?;
        self.check_policy(uplink).await?;
        let limit = Instant::now() + RESTORE_LIMIT;
        // FRR 8.4 loses the `ip ospf passive` that comes after a `no ip ospf passive` too many.
        if !self.is_in_service(name).await? {
            self.take_back(uplink).await?;
        }
        if self.dry_run {
            return Ok("dry-run");
        }
        self.wait_for(uplink, limit, "its neighbour is Full or Established with BFD up", State::carries).await?;
        let state = self.wait_for(uplink, limit, "routes lead over it again", State::is_routed_over).await?;
        print(&state.describe());
        Ok("done")
    }

    async fn is_in_service(&self, name: &str) -> Result<bool> {
        Ok(self.look().await?.iter().any(|state| state.uplink == name && state.is_in_service()))
    }

    async fn check_policy(&self, uplink: &Uplink) -> Result<()> {
        if self.config.fabric.protocol == FabricProtocol::Ospf {
            return Ok(());
        }
        let running = ask(&answers::RUNNING).await?.context(NO_VTYSH)?;
        let neighbours = ask(&bgp::NEIGHBOURS).await?.context(NO_VTYSH)?;
        drain::bgp::check_maps(uplink, &running, &neighbours)
    }

    /// Waits until no route leads over the uplink, and then as long again as the others may take to hear of it, until
    /// next to nothing comes by it.
    async fn wait_until_idle(&self, uplink: &Uplink, ends_session: bool) -> Result<()> {
        let limit = Instant::now() + DRAIN_LIMIT;
        loop {
            self.wait_while(uplink, limit, |state| state.routes > 0 || (ends_session && state.is_adjacent())).await?;
            let start = Instant::now();
            let before = self.kernel.traffic_over(&uplink.name).await?.received;
            self.wait_while(uplink, limit + SPREAD, |_| start.elapsed() < SPREAD).await?;
            let received = self.kernel.traffic_over(&uplink.name).await?.received.saturating_sub(before);
            if received <= (CHATTER + self.bfd_packets()) * SPREAD.as_secs() {
                return Ok(());
            }
        }
    }

    /// Polls while the uplink is so, but no longer than until `limit`. When no other uplink carries any more, this one
    /// is taken back at once.
    async fn wait_while(&self, uplink: &Uplink, limit: Instant, is_so: impl Fn(&State) -> bool) -> Result<()> {
        let name = &uplink.name;
        loop {
            let states = self.look().await?;
            if !carried_without(&states, name) {
                self.take_back(uplink).await?;
                bail!("no other uplink carries any more ({}), so it was taken back", describe_others(&states, name));
            }
            let state = states.iter().find(|state| state.uplink == *name).context("FRR does not have it any more")?;
            if !is_so(state) {
                return Ok(());
            }
            ensure!(
                Instant::now() < limit,
                "it still carries after {} s ({}) and stays half drained: `tcpdump -ni {name}` shows for whom, \
                 `tap32 uplink restore {name}` takes it back",
                DRAIN_LIMIT.as_secs(),
                state.describe()
            );
            sleep(POLL).await;
        }
    }

    /// BFD's packets a second, which jitter may make a third more (RFC 5880, 6.8.7).
    fn bfd_packets(&self) -> u64 {
        4000 / 3 / u64::from(self.config.fabric.bfd.interval_ms.max(1))
    }

    async fn take_back(&self, uplink: &Uplink) -> Result<()> {
        for commands in drain::restore(self.config, uplink)? {
            self.say(&commands).await?;
        }
        Ok(())
    }

    async fn wait_for(
        &self,
        uplink: &Uplink,
        limit: Instant,
        what: &str,
        is_there: impl Fn(&State) -> bool,
    ) -> Result<State> {
        loop {
            let states = self.look().await?;
            let state = states.into_iter().find(|state| state.uplink == uplink.name).context("the uplink is gone")?;
            if is_there(&state) {
                return Ok(state);
            }
            ensure!(
                Instant::now() < limit,
                "not within {} s that {what} ({}): look at the switch's end, {}",
                RESTORE_LIMIT.as_secs(),
                state.describe(),
                uplink.switch_port.as_deref().unwrap_or("its port")
            );
            sleep(POLL).await;
        }
    }

    /// Prints a vtysh command as a person would type it, and runs it.
    async fn say(&self, commands: &[String]) -> Result<()> {
        print(&vtysh::command_line(commands));
        if !self.dry_run {
            vtysh::vtysh(commands).await?.context(NO_VTYSH)?;
        }
        Ok(())
    }

    fn uplink(&self, name: &str) -> Result<&Uplink> {
        let uplinks = render::uplinks(self.config)?;
        uplinks.iter().find(|uplink| uplink.name == name).with_context(|| {
            let names: Vec<&str> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
            format!("{name} is no uplink of the configuration, which has {}", names.join(", "))
        })
    }

    /// All uplinks as FRR and the kernel have them now.
    async fn look(&self) -> Result<Vec<State>> {
        let commands = answers::about_uplinks(self.config.fabric.protocol);
        let answers = ask_all(commands).await.context(NO_VTYSH)?;
        let mut states = states(self.config, &answers)?;
        for state in &mut states {
            state.routes = self.kernel.traffic_over(&state.uplink).await?.routes;
        }
        Ok(states)
    }
}

const NO_VTYSH: &str = "there is no vtysh here: uplinks are FRR's, install it";

/// All uplinks as FRR has them; the kernel's routes are not counted yet.
///
/// # Errors
/// An answer is missing, or the configuration names no uplink.
pub fn states(config: &Config, answers: &Answers) -> Result<Vec<State>> {
    let uplinks = render::uplinks(config)?;
    let bfd = answers.get(&bfd::SESSIONS).map_err(Error::msg)?;
    let state = |uplink: &Uplink, neighbour: &str, drained: bool| State {
        uplink: uplink.name.clone(),
        peer: uplink.peer.to_string(),
        neighbour: neighbour.to_owned(),
        bfd: bfd.status(uplink).to_owned(),
        drained,
        routes: 0,
    };
    Ok(match config.fabric.protocol {
        FabricProtocol::Ospf => {
            let neighbours = answers.get(&ospf::NEIGHBOURS).map_err(Error::msg)?;
            let interfaces = answers.get(&ospf::INTERFACES).map_err(Error::msg)?;
            uplinks
                .iter()
                .map(|uplink| state(uplink, neighbours.state(uplink), interfaces.is_drained(uplink)))
                .collect()
        }
        FabricProtocol::Bgp => {
            let neighbours = answers.get(&bgp::NEIGHBOURS).map_err(Error::msg)?;
            uplinks
                .iter()
                .map(|uplink| state(uplink, neighbours.state(uplink), neighbours.is_drained(uplink)))
                .collect()
        }
    })
}

/// Aligned columns for people; the last says which are drained.
pub fn table(states: &[State]) -> String {
    let mut rows = vec![(["UPLINK", "PEER", "NEIGHBOUR", "BFD", "ROUTES", ""].map(str::to_owned), PLAIN)];
    rows.extend(states.iter().map(|state| {
        let State { uplink, peer, neighbour, bfd, routes, drained } = state.clone();
        let drained = if drained { "drained" } else { "" };
        ([uplink, peer, neighbour, bfd, routes.to_string(), drained.to_owned()], PLAIN)
    }));
    text::table(&rows, None)
}

fn carried_without(states: &[State], name: &str) -> bool {
    states.iter().any(|state| state.uplink != name && state.is_routed_over())
}

fn describe_others(states: &[State], name: &str) -> String {
    let others: Vec<String> = states.iter().filter(|state| state.uplink != name).map(State::describe).collect();
    if others.is_empty() { "there is none".to_owned() } else { others.join("; ") }
}

/// At once, for a drain takes seconds; whether anybody reads it does not matter.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
