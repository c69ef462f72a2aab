//! What throughput tests say of a line, against what its log says that it delivered and how long it held
//! their probes: a long buffer upward, in which TCP loses and goes on, and a short one downward.

use bufferbane_lab::bench::shapes::{self, SHAPES};
use bufferbane_lab::home::Home;
use bufferbane_lab::link::Way;
use bufferbane_lab::services::{KEY_FILE, Services};
use bufferbane_lab::{netns, skip};

const REFLECTOR: &str = "10.99.0.1:9876";
/// Seconds of load.
const SECONDS: u64 = 6;

fn hold(name: &str, way: Way) {
    let shape = SHAPES.iter().find(|s| s.name == name);
    let shape = shape.expect("a shape of that name");
    let home = Home::new(1, &shape.up.direction(), &shape.down.direction(), 7).expect("a lab");
    // Its own probes have another size than those of the test.
    let text = format!(
        "target = []\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"vienna\"\n\
         address = \"{REFLECTOR}\"\nkey_file = \"{KEY_FILE}\"\ninterval = \"100ms\"\nsize = 200\n\
         [throughput]\nevery = \"never\"\n"
    );
    let listen = REFLECTOR.parse().expect("an address");
    let services = Services::start(&home.client, &home.server, listen, &text);
    let services = services.expect("daemon and reflector");
    std::thread::sleep(std::time::Duration::from_secs(2));

    let row =
        shapes::hold(&home.links[0], &services.control_socket(), way, SECONDS).expect("a test");
    services.stop().expect("both ran to their ends");
    println!("{name} {row}");
    assert!(row.is_kept(), "{name} {row}");
}

#[test]
fn a_test_says_what_the_line_delivered_and_how_long_it_held_probes() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    hold("6/1", Way::Up);
    hold("25/5", Way::Down);
}
