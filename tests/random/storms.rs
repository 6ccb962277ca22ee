//! What happens to a whole bridge. In a batch only one bridge has storms: the guests of the other are left alone.

use crate::cutting::PUT_BACK;
use crate::model::{BRIDGES, GATEWAYS, Tap};
use crate::operations::{Choice, Hand};

pub const TABLE: &[(usize, Choice)] = &[
    (3, bridge_down),
    (6, bridge_up),
    (3, flap),
    (3, flush_routes),
    (2, move_gateway),
    (2, flush_fdb),
    (2, flush_neighbours),
    (2, delete),
    (4, make),
];

/// Of two taps with one guest only one is looked at when its neighbour entry goes.
fn forget_doubled(hand: &mut Hand) {
    for i in 0..hand.model.taps.len() {
        let doubled = hand.model.has_duplicate(&hand.model.taps[i]);
        hand.model.taps[i].doubled |= doubled;
    }
}

fn bridge_down(hand: &mut Hand) -> Option<()> {
    let bridge = hand.model.storm.filter(|bridge| hand.model.up[*bridge])?;
    // Whether `watch` has put back first what it may put back, nobody can know.
    hand.model.taps.iter().all(|tap| !tap.moving || tap.bridge != Some(bridge)).then_some(())?;
    hand.shell(format!("ip link set {} down", BRIDGES[bridge]));
    hand.model.up[bridge] = false;
    forget_doubled(hand);
    hand.model.doubt_claims(|guest| guest.bridge == bridge);
    Some(())
}

fn bridge_up(hand: &mut Hand) -> Option<()> {
    let bridge = (0..BRIDGES.len()).find(|bridge| hand.model.exists[*bridge] && !hand.model.up[*bridge])?;
    hand.shell(format!("ip link set {} up", BRIDGES[bridge]));
    hand.model.up[bridge] = true;
    hand.model.come_back();
    Some(())
}

fn flap(hand: &mut Hand) -> Option<()> {
    bridge_down(hand)?;
    bridge_up(hand)
}

fn flush_routes(hand: &mut Hand) -> Option<()> {
    let bridge = hand.model.storm.filter(|bridge| hand.model.exists[*bridge])?;
    // ip fails where tap32 deletes a route between ip's list and its deletion; it is run again then.
    hand.shell(format!("ip route flush dev {0} proto 132 || ip route flush dev {0} proto 132", BRIDGES[bridge]));
    let guests = hand.model.taps.iter().filter(|tap| tap.bridge == Some(bridge)).filter_map(|tap| tap.guest);
    hand.model.lingering.extend(guests.collect::<Vec<_>>());
    hand.model.doubt_claims(|guest| guest.bridge == bridge);
    Some(())
}

fn move_gateway(hand: &mut Hand) -> Option<()> {
    let bridge = hand.model.storm.filter(|bridge| hand.model.exists[*bridge])?;
    let (name, address) = (BRIDGES[bridge], GATEWAYS[bridge]);
    hand.shell(format!("ip addr del {address} dev {name} && ip addr add {address} dev {name}"));
    hand.model.doubt_claims(|guest| guest.bridge == bridge);
    forget_doubled(hand);
    Some(())
}

fn flush_fdb(hand: &mut Hand) -> Option<()> {
    let bridge = hand.model.storm.filter(|bridge| hand.model.exists[*bridge])?;
    let ports = hand.model.taps.iter_mut().filter(|tap| tap.bridge == Some(bridge));
    // What `watch` does then counts as putting back.
    let mut ports: Vec<&mut Tap> = ports.collect();
    ports.iter().all(|tap| tap.put_back < PUT_BACK).then_some(())?;
    ports.iter_mut().for_each(|tap| (tap.put_back, tap.unlisted) = (tap.put_back + 1, true));
    hand.shell(format!("bridge fdb flush dev {}", BRIDGES[bridge]));
    hand.model.doubt_claimers(|guest| guest.bridge == bridge);
    Some(())
}

fn flush_neighbours(hand: &mut Hand) -> Option<()> {
    let bridge = hand.model.storm.filter(|bridge| hand.model.exists[*bridge])?;
    hand.shell(format!(
        "ip neigh flush dev {0} nud permanent || ip neigh flush dev {0} nud permanent",
        BRIDGES[bridge]
    ));
    forget_doubled(hand);
    Some(())
}

/// The bridge goes, and its ports are on none. What `watch` has not seen it cannot put back, and of two taps with one guest
/// it puts back the first.
fn delete(hand: &mut Hand) -> Option<()> {
    let bridge = hand.model.storm.filter(|bridge| hand.model.exists[*bridge])?;
    let is_seen = |tap: &Tap| tap.bridge != Some(bridge) || (tap.known && !tap.moving && tap.put_back < PUT_BACK);
    let is_alone = |tap: &Tap| tap.bridge != Some(bridge) || !hand.model.has_duplicate(tap);
    hand.model.taps.iter().all(|tap| is_seen(tap) && is_alone(tap)).then_some(())?;
    hand.shell(format!("ip link del {}", BRIDGES[bridge]));
    (hand.model.exists[bridge], hand.model.up[bridge]) = (false, false);
    for tap in hand.model.taps.iter_mut().filter(|tap| tap.bridge == Some(bridge)) {
        tap.was = tap.bridge.take().filter(|_| tap.up && tap.guest.is_some());
    }
    hand.model.doubt_claimers(|guest| guest.bridge == bridge);
    Some(())
}

/// `setup` makes what is missing, and sets up what is down.
fn make(hand: &mut Hand) -> Option<()> {
    (0..BRIDGES.len()).find(|bridge| !hand.model.exists[*bridge])?;
    hand.shell("tap32 setup".to_owned());
    (hand.model.exists, hand.model.up) = ([true; 2], [true; 2]);
    hand.model.come_back();
    Some(())
}
