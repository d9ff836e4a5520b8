package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// State is a message to the service manager, sd_notify(3).
type State string

// The states of a service of Type=notify.
const (
	Ready    State = daemon.SdNotifyReady    // started, or reloaded
	Stopping State = daemon.SdNotifyStopping // the drain has begun

	alive State = daemon.SdNotifyWatchdog
)

// Reloading returns the message that a reload begins now. Ready, whether the
// reload succeeded or not, must follow. It carries the monotonic time, which
// Type=notify-reload needs.
func Reloading() State {
	return State(daemon.SdNotifyReloading + "\n" + strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// maxStatus is enough for a line of systemctl status. A datagram holds far more.
const maxStatus = 500

// Status returns the message that shows text, of at most 500 bytes, in systemctl
// status. Line breaks become spaces: each line would be a message of its own.
func Status(text string) State {
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	return State("STATUS=" + strings.ToValidUTF8(text[:min(len(text), maxStatus)], ""))
}

// Notify sends states, together. Without a service manager (NOTIFY_SOCKET is
// not set) it does nothing. An error is worth a log line, no more: the service
// manager will say what it missed.
func Notify(states ...State) error {
	lines := make([]string, len(states))
	for i, s := range states {
		lines[i] = string(s)
	}
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("systemd: notify: %w", err)
	}
	return nil
}

// Watchdog tells the service manager that the daemon is alive, at half of the
// interval that it wants (WATCHDOG_USEC), for as long as healthy returns true.
// Once it returns false, or hangs, the pings stay away, and the service manager
// kills and restarts the daemon when the interval is over; when it returns true
// again before that, they go on.
//
// Watchdog returns when ctx ends, at once with nil where no watchdog is wanted. ctx
// should outlive the drain, which the watchdog guards as well. Pings that cannot
// be sent are tried again; the last error is returned in the end.
func Watchdog(ctx context.Context, healthy func() bool) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("systemd: watchdog: %w", err)
	}
	if interval == 0 {
		return nil
	}
	tick := time.NewTicker(max(interval/2, time.Millisecond))
	defer tick.Stop()
	for {
		if healthy() {
			err = Notify(alive)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
