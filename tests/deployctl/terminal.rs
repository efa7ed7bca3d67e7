//! `deployctl exec -t`, at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::{Ctl, SHOP};

const LONG: Duration = Duration::from_secs(60);

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn a_command_runs_in_the_terminal_of_its_caller() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", SHOP);
    ctl.done(&["up", "-f", &file]);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let screen = openpt(flags).unwrap();
    unlockpt(&screen).unwrap();
    tcsetwinsize(&screen, size(90, 20)).unwrap();
    let terminal = ioctl_tiocgptpeer(&screen, flags).unwrap();
    let mut keys = File::from(screen);
    let mut screen = keys.try_clone().unwrap();
    let modes = || tcgetattr(&terminal).unwrap().local_modes;
    let before = modes();
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));

    let mut child = ctl
        .command(&["exec", "shop", "web", "-it", "--", "/bin/sh"])
        .stdin(Stdio::from(terminal.try_clone().unwrap()))
        .stdout(Stdio::from(terminal.try_clone().unwrap()))
        .spawn()
        .unwrap();
    let (sender, shown) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut buffer) {
            let _ = sender.send(String::from_utf8_lossy(&buffer[..read]).into_owned());
        }
    });
    let mut text = String::new();
    let mut until = |wanted: &str| {
        while !text.contains(wanted) {
            let Ok(more) = shown.recv_timeout(LONG) else { panic!("no {wanted:?} in {text:?}") };
            text.push_str(&more);
        }
        text.clear();
    };
    // What is typed is echoed by the command's terminal, never as the shell says it.
    keys.write_all(b"PS1='rea''dy> '; echo $VERSION-$((6 * 7)) $(stty size)\r").unwrap();
    until("one-42 20 90\r\nready> ");
    assert!(!modes().intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    // ^C ends what runs in the foreground, and not the shell.
    keys.write_all(b"sh -c \"echo slee''ps; exec sleep 1000\"\r").unwrap();
    until("sleeps\r\n");
    keys.write_all(&[3]).unwrap();
    until("ready> ");
    tcsetwinsize(&keys, size(100, 30)).unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::WINCH).unwrap();
    keys.write_all(b"until stty size | grep '30 100'; do sleep 0.1; done; exit 5\r").unwrap();
    until("30 100\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(modes(), before, "the terminal is as it was");

    let message = "run the command in a terminal: standard input and output are no terminal; \
                   leave out -t";
    ctl.refused(&["exec", "shop", "web", "-t", "--", "/bin/true"], 2, message);
}
