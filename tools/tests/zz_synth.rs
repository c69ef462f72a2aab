mod common;
use common::*;
#[test]
fn synth() {
    let Ok(dir) = std::env::var("SYNTH_DIR") else {
        return;
    };
    let dir = std::path::Path::new(&dir);
    std::fs::create_dir_all(dir).unwrap();
    for n in [1, 8] {
        for (name, interval, span) in [
            ("1m", S / 20, 60 * S),
            ("1h", S / 5, 3600 * S),
            ("1d", S, 86400 * S),
            ("30d", 10 * S, 30 * 86400 * S),
        ] {
            let p = dir.join(format!("{name}-{n}.redb"));
            if !p.exists() {
                let t = std::time::Instant::now();
                Line::new(n, interval, span).write(&p);
                eprintln!("{p:?} {:?}", t.elapsed());
            }
        }
    }
}
