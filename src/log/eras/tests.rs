use super::*;

const ALONE: Epoch = Epoch(1);
const REDIS: Epoch = Epoch(2);
const NATS: Epoch = Epoch(3);

fn place(eras: &Eras, epoch: Epoch, position: u64) -> Place {
    eras.place(epoch, Position(position), ALONE)
}

fn begin(eras: &mut Eras, epoch: Epoch, after: u64, least: u64, head: u64) -> Position {
    eras.begin(Next::Bus(&[(epoch, Position(after))]), Position(least), Position(head))
}

fn cursor(eras: &Eras, position: u64) -> Cursor {
    eras.cursor(Position(position), ALONE).unwrap()
}

fn at(epoch: Epoch, position: u64) -> Cursor {
    Cursor::at(epoch, Position(position))
}

fn marks(positions: &[u64]) -> Marks {
    Marks::new(positions.iter().copied().map(Position).collect::<Vec<_>>()).unwrap()
}

fn gap(after: u64, up_to: u64) -> Gap {
    Gap { hole: Hole { after: Position(after), up_to: Position(up_to) }, marks: None }
}

#[test]
fn a_cursor_names_the_position_on_the_bus() {
    let mut eras = Eras::own();
    assert_eq!(cursor(&eras, 7), at(ALONE, 7));
    // A bus that counts from one, after a log that stands at 1,000.
    assert_eq!(begin(&mut eras, REDIS, 0, 1000, 999), Position(1000));
    assert_eq!(eras.at_bus(Position(1)), Position(1001));
    assert_eq!(cursor(&eras, 1001), at(REDIS, 1));
    assert_eq!(cursor(&eras, 1000), at(REDIS, 0));
    assert_eq!(cursor(&eras, 999), at(ALONE, 999));
    // And one whose positions are far above.
    assert_eq!(eras.came_to(REDIS), None, "it goes on");
    let begin = begin(&mut eras, NATS, 50_000, 1010, 1008);
    assert_eq!((begin, eras.came_to(REDIS)), (Position(50_000), Some(Position(8))));
    assert_eq!(eras.at_bus(Position(50_001)), Position(50_001));
    assert_eq!(place(&eras, NATS, 50_002), Place::Current(Position(50_002)));
    assert_eq!(place(&eras, NATS, 49_999), Place::BeforeCurrent(Position(50_000)));
    assert_eq!(place(&eras, REDIS, 10), Place::Past(Position(1010)));
    assert_eq!(place(&eras, ALONE, 999), Place::Past(Position(999)));
    assert_eq!(place(&eras, Epoch(9), 999), Place::Elsewhere);
}

#[test]
fn several_shards_are_a_stretch_that_the_log_numbers() {
    let mut eras = Eras::own();
    let shards = [(REDIS, Position(70)), (NATS, Position(5))];
    let epoch = Epoch::of_shards(&[REDIS, NATS]);
    assert_eq!(eras.begin(Next::Bus(&shards), Position(1000), Position(999)), Position(1000));
    assert_eq!((eras.bus(), eras.shards()), (Some(epoch), vec![REDIS, NATS]));
    let stretch = Stretch { epoch, after: Position(1000), end: None, begin: &marks(&[70, 5]) };
    assert_eq!(eras.cursor(Position(1001), ALONE), Err(stretch));
    assert_eq!(eras.stretches(epoch).collect::<Vec<_>>(), [stretch]);
    assert_eq!(place(&eras, epoch, 1001), Place::Elsewhere, "one position says nothing there");
    assert_eq!(cursor(&eras, 999), at(ALONE, 999));
    // One of them is another log: so are all.
    let other = Epoch::of_shards(&[REDIS, Epoch(4)]);
    let shards = [(REDIS, Position(90)), (Epoch(4), Position(0))];
    eras.begin(Next::Bus(&shards), Position(1100), Position(1099));
    assert_eq!(eras.bus(), Some(other));
    assert_eq!(eras.stretches(epoch).next().and_then(|stretch| stretch.end), Some(Position(1099)));
}

#[test]
fn the_epoch_of_shards_is_the_same_for_ever() {
    assert_eq!(Epoch::of_shards(&[REDIS]), REDIS);
    assert_eq!(Epoch::of_shards(&[Epoch(1), Epoch(2)]), Epoch(0x50b9_6488_91f0_c372));
    assert_ne!(Epoch::of_shards(&[Epoch(2), Epoch(1)]), Epoch::of_shards(&[Epoch(1), Epoch(2)]));
}

#[test]
fn they_come_back_and_damage_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Eras::read(dir.path()), Eras::own());
    let mut eras = Eras::own();
    begin(&mut eras, REDIS, u64::MAX >> 1, 5, 5);
    let shards = [(REDIS, Position(u64::MAX >> 2)), (NATS, Position(0))];
    eras.begin(Next::Bus(&shards), Position(6), Position(6));
    eras.begin(Next::Own(Position(u64::MAX >> 1)), Position(7), Position(7));
    eras.add_gap(gap(9, 12));
    eras.add_gap(Gap { marks: Some(marks(&[4, 5, 6])), ..gap(13, 14) });
    eras.write(dir.path()).unwrap();
    assert_eq!(Eras::read(dir.path()), eras);
    let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
    bytes[3] ^= 1;
    fs::write(dir.path().join(FILE), bytes).unwrap();
    assert_eq!(Eras::read(dir.path()), Eras::own());
}

#[test]
fn very_many_take_bounded_space() {
    let mut eras = Eras::own();
    for n in 1..1000 {
        begin(&mut eras, Epoch(n + 10), 0, n * 10, n * 10);
        eras.add_gap(gap(n * 10, n * 10 + 5));
    }
    assert_eq!((eras.eras.len(), eras.gaps.len()), (MOST_ERAS, MOST_GAPS));
    assert_eq!(eras.gaps[0].hole.after, Position(10));
}
