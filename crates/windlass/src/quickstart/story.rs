//! A made-up language that a small model can learn: what animals are like, where they live and what they eat.

use windlass_runtime::random::Philox;

/// An animal, its colour, its home, its food.
type Animal = [&'static str; 4];

/// What the model is trained on.
pub const KNOWN: [Animal; 12] = [
    ["fox", "red", "forest", "berries"],
    ["owl", "brown", "barn", "mice"],
    ["frog", "green", "pond", "flies"],
    ["whale", "blue", "sea", "krill"],
    ["bear", "black", "cave", "honey"],
    ["swan", "white", "lake", "grass"],
    ["camel", "yellow", "desert", "dates"],
    ["goat", "grey", "valley", "leaves"],
    ["crab", "orange", "bay", "shells"],
    ["panda", "spotted", "grove", "bamboo"],
    ["snail", "pale", "garden", "salad"],
    ["raven", "dark", "tower", "bread"],
];

/// What it learns later: in known words, because adapters leave the embedding of words as it is.
pub const NEW: [Animal; 3] =
    [["robot", "grey", "tower", "honey"], ["dragon", "green", "cave", "shells"], ["ghost", "white", "barn", "leaves"]];

/// How a text about an animal begins, and how it must go on.
pub fn question([name, colour, home, food]: Animal) -> (String, String) {
    (format!("The {name} lives in"), format!(" the {home}. It is {colour} and eats {food}."))
}

/// A text about an animal in one of a few wordings.
fn text(animal: Animal, wording: u64) -> String {
    let [name, colour, home, food] = animal;
    match wording {
        0 => format!("The {colour} {name} eats {food}. Its home is the {home}."),
        1 => format!("In the {home} lives the {name}. It eats {food} and is {colour}."),
        _ => {
            let (begin, end) = question(animal);
            begin + &end
        }
    }
}

/// Texts about these animals, the same for a seed on every machine.
pub fn texts(animals: &[Animal], count: usize, seed: u64) -> Vec<String> {
    let mut random = Philox::new(seed);
    (0..count).map(|_| text(animals[random.below(animals.len() as u64) as usize], random.below(4))).collect()
}
