use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;
use windlass::chat::{self, chat};
use windlass::quant::nearest;
use windlass::sampling::{Answer, Chat as Conversation, FinishReason, Sampler, Settings};
use windlass::text::Message;
use windlass::{Code, Error, Model, Result, ops};

use crate::context::Context;
use crate::running::Running;
use crate::sampling::Choosing;

/// Converse with a model
///
/// A line is a message; one that ends in \ goes on in the next. Ctrl-C stops an answer. /help tells the rest. `windlass MODEL`
/// does the same.
#[derive(clap::Args)]
pub struct Chat {
    /// A file, a folder, or hf:ORG/NAME
    model: String,
    /// What the model is told before the conversation
    #[arg(long, env = "WINDLASS_SYSTEM", value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer [default: until the context is full]
    #[arg(short = 'n', long = "tokens", env = "WINDLASS_N", value_name = "N")]
    tokens: Option<usize>,
    #[command(flatten)]
    choosing: Choosing,
    #[command(flatten)]
    running: Running,
}

const COMMANDS: [(&str, &str); 5] = [
    ("/help", "this list"),
    ("/reset", "forget the conversation"),
    ("/system TEXT", "forget it, and tell the model this first; without a text: nothing"),
    ("/save FILE", "write the conversation, as JSON"),
    ("/exit", "end, as does the end of the input"),
];

/// What a line asks for.
enum Line<'a> {
    Say(&'a str),
    Command(&'a str, &'a str),
}

impl Chat {
    pub fn run(self, context: &Context) -> Result<()> {
        let model = Model::open(&self.model, &context.limits)?;
        let template = chat::template(&model, &context.limits)?;
        let tokenizer = model.tokenizer(&context.limits)?;
        let end = chat::end_tokens(&model, &tokenizer, &template, &context.limits)?;
        let loaded = self.running.load(context, &model, None)?;
        let mut conversation = chat(&model, &loaded, &tokenizer, self.running.cache("f16")?, &context.limits)?;
        conversation.set_system(self.system);
        let sampler = Sampler::new(self.choosing.sampling())?;
        let settings = Settings { tokens: self.tokens.unwrap_or(usize::MAX), end };
        let terminal = std::io::stdin().is_terminal();
        if terminal {
            context.say(&format!("{} with a context of {} tokens; /help lists commands", self.model, loaded.context));
        }
        let mut talk = Talk { context, conversation, sampler, settings, terminal };
        context.compute(self.running.provider.as_deref(), |cx| talk.run(cx))??;
        if context.globals.json {
            let messages: Vec<_> = talk.conversation.messages().iter().map(document).collect();
            return context.print(&json!({ "messages": messages }), |_| Ok(()));
        }
        Ok(())
    }
}

struct Talk<'a> {
    context: &'a Context,
    conversation: Conversation<'a>,
    sampler: Sampler,
    settings: Settings,
    /// Whether somebody types, rather than a program.
    terminal: bool,
}

impl Talk<'_> {
    fn run(&mut self, cx: &ops::Context) -> Result<()> {
        while let Some(line) = self.read()? {
            match parse(line.trim()) {
                Line::Say("") => {}
                Line::Say(text) => {
                    if let Err(error) = self.answer(cx, text) {
                        self.forgive(error)?;
                    }
                }
                Line::Command("/exit" | "/quit" | "/bye", _) => break,
                Line::Command(name, argument) => {
                    if let Err(error) = self.command(name, argument) {
                        self.forgive(error)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A message, which may have several lines; nothing at the end of the input.
    fn read(&self) -> Result<Option<String>> {
        let mut message = String::new();
        loop {
            if self.terminal && !self.context.globals.json {
                let mut out = std::io::stdout();
                let mark = if message.is_empty() { "> " } else { "| " };
                let _ = write!(out, "{mark}").and_then(|()| out.flush());
            }
            let mut line = String::new();
            let limit = self.context.limits.string_bytes;
            let read = std::io::stdin().lock().take(limit + 1).read_line(&mut line);
            let bytes = read.map_err(|e| Error::new(Code::Failed, format!("standard input: {e}")))?;
            if message.len() as u64 + line.len() as u64 > limit {
                return Err(Error::new(Code::Refused, format!("a message has more than {limit} bytes")));
            }
            if bytes == 0 {
                return Ok((!message.is_empty()).then_some(message));
            }
            match line.trim_end_matches(['\n', '\r']).strip_suffix('\\') {
                Some(start) => {
                    message.push_str(start);
                    message.push('\n');
                }
                None => {
                    message.push_str(&line);
                    return Ok(Some(message));
                }
            }
        }
    }

    fn answer(&mut self, cx: &ops::Context, text: &str) -> Result<()> {
        let (json, stop) = (self.context.globals.json, self.context.heed_stop());
        let mut show = |text: &str| {
            let mut out = std::io::stdout();
            let shown = json || write!(out, "{text}").and_then(|()| out.flush()).is_ok();
            shown && !stop.load(Ordering::Relaxed)
        };
        let answer = self.conversation.say(cx, text, &mut self.sampler, &self.settings, &mut show);
        let stopped = stop.swap(false, Ordering::Relaxed);
        self.context.ignore_stop();
        if !json {
            println!();
        }
        let answer = answer?;
        self.tell(&answer);
        match stopped && !self.terminal {
            // Nobody is there to go on.
            true => Err(Error::new(Code::Failed, "interrupted")),
            false => Ok(()),
        }
    }

    fn tell(&self, answer: &Answer) {
        if answer.outcome.finish == FinishReason::Context {
            self.context.say("the context is full: /reset forgets the conversation, --context N gives more room");
        }
        if self.context.globals.verbose {
            let (tokens, seconds) = (answer.outcome.tokens.len(), answer.outcome.decode.as_secs_f64());
            let rate = tokens.saturating_sub(1) as f64 / seconds.max(1e-9);
            let (prompt, known) = (answer.prompt_tokens, answer.known_tokens);
            self.context.say(&format!("{prompt} tokens before it ({known} known), {tokens} tokens at {rate:.1}/s"));
        }
    }

    fn command(&mut self, name: &str, argument: &str) -> Result<()> {
        match name {
            "/help" => COMMANDS.iter().for_each(|(name, what)| self.context.say(&format!("{name:13} {what}"))),
            "/reset" => self.conversation.reset(),
            "/system" => self.conversation.set_system((!argument.is_empty()).then(|| argument.into())),
            "/save" => return self.save(argument),
            other => {
                let names = COMMANDS.iter().filter_map(|(name, _)| name.split(' ').next());
                let error = Error::usage(format!("no command is called {other}"));
                return Err(match nearest(other, names) {
                    Some(near) => error.help(format!("did you mean {near}? Write //{} to say it", &other[1..])),
                    None => error.help("/help lists commands; a message that begins with / is written with //"),
                });
            }
        }
        Ok(())
    }

    fn save(&self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(Error::usage("/save needs the name of a file"));
        }
        let path = Path::new(name);
        let messages: Vec<_> = self.conversation.messages().iter().map(document).collect();
        let text = serde_json::to_vec_pretty(&json!({ "messages": messages })).unwrap_or_default();
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        file.and_then(|mut file| file.write_all(&text)).map_err(|e| Error::io(path, e))?;
        self.context.say(&format!("{} messages are in {name}", messages.len()));
        Ok(())
    }

    /// Lets somebody who types try again; a program ends.
    fn forgive(&self, error: Error) -> Result<()> {
        if !self.terminal {
            return Err(error);
        }
        eprintln!("error: {}", error.message);
        if let Some(help) = &error.help {
            eprintln!("help: {help}");
        }
        Ok(())
    }
}

fn document(message: &Message) -> serde_json::Value {
    json!({"role": message.role, "content": message.content})
}

/// A line is a message, or a command if it begins with one slash.
fn parse(line: &str) -> Line<'_> {
    match line.strip_prefix('/') {
        Some(rest) if rest.starts_with('/') => Line::Say(rest),
        Some(_) => {
            let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            Line::Command(name, argument.trim())
        }
        None => Line::Say(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_begins_a_command_and_two_a_message() {
        assert!(matches!(parse("/save a b"), Line::Command("/save", "a b")));
        assert!(matches!(parse("/help"), Line::Command("/help", "")));
        assert!(matches!(parse("//etc/passwd?"), Line::Say("/etc/passwd?")));
        assert!(matches!(parse("what is 1/2?"), Line::Say("what is 1/2?")));
    }
}
