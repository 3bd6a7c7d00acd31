//! The sedge binary.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let a: Vec<String> = std::env::args().collect();
    sedge::serve::serve(sedge::config::temp(a[1].parse().unwrap(), a[2].parse().unwrap()), || Err("no".into())).unwrap();
}
