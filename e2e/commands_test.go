//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postseal/postseal/e2e/lab"
	"github.com/rogpeppe/go-internal/testscript"
)

const (
	smtpdAddress = "127.0.0.1:2525"
	stepDeadline = 40 * time.Second       // within which a step's condition must come true
	pollInterval = 20 * time.Millisecond  // between two looks at it
	askInterval  = 200 * time.Millisecond // between two dialogues or commands that ask for it
)

type storyKey struct{}

// story is the state of one running story.
type story struct {
	world    *lab.World
	postfix  *lab.Postfix
	postseal *lab.Postseal
	seen     map[string]int // token → deliveries of it that a step has spoken of
	held     map[string]int // token of a message that the last flush set in motion → its attempts before
	streams  map[string]*stream
	crowds   map[string]chan error
	judged   map[string]int     // token → lines of the milter about it that a step has spoken of
	clients  map[string]*client // SMTP connections that stay open
}

// commands is the language of the stories; README.md describes it.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	steps := map[string]func(context.Context, *story, []string) error{
		"send": stepSend, "submit": stepSubmit, "flush": stepFlush, "delivered": stepDelivered, "deferred": stepDeferred,
		"bounced": stepBounced, "untouched": stepUntouched, "log": stepLog, "daemonlog": stepDaemonLog,
		"answer": stepAnswer, "dns": stepDNS, "resolver": stepResolver, "policyhost": stepPolicyHost,
		"sink": stepSink, "postfix": stepPostfix, "postseal": stepPostseal, "older": stepOlder,
		"stream": stepStream, "post": stepPost, "talk": stepTalk, "mail": stepMail, "judged": stepJudged,
		"received": stepReceived, "queued": stepQueued, "release": stepRelease, "signer": stepSigner,
		"rcpt": stepRcpt, "says": stepSays, "crowd": stepCrowd,
	}
	table := make(map[string]func(*testscript.TestScript, bool, []string))
	for name, step := range steps {
		table[name] = func(ts *testscript.TestScript, negated bool, words []string) {
			s := ts.Value(storyKey{}).(*story)
			deadline := stepDeadline
			if negated {
				deadline = 0 // a negated step looks once
			}
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			words, err := s.readFiles(ts, words)
			if err == nil {
				err = step(ctx, s, words)
			}
			if negated && err == nil {
				err = errors.New("it succeeded")
			} else if negated {
				err = nil
			}
			if err != nil {
				var logs strings.Builder
				s.world.DumpLogs(&logs)
				ts.Logf("%s", logs.String())
				ts.Fatalf("%s: %v", name, err)
			}
		}
	}
	return table
}

// readFiles replaces words "@FILE" by the file's text.
func (s *story) readFiles(ts *testscript.TestScript, words []string) ([]string, error) {
	words = slices.Clone(words)
	for i, word := range words {
		if file, ok := strings.CutPrefix(word, "@"); ok {
			text, err := os.ReadFile(ts.MkAbs(file))
			if err != nil {
				return nil, err
			}
			words[i] = string(text)
		}
	}
	return words, nil
}

// until waits for a condition; when the time is over, its last error is the step's.
func until(ctx context.Context, condition func() error) error {
	return every(ctx, pollInterval, condition)
}

// every is until, for a condition that costs more than a look.
func every(ctx context.Context, interval time.Duration, condition func() error) error {
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(interval):
		}
	}
}

// send TOKEN RECIPIENT…
func stepSend(ctx context.Context, s *story, words []string) error {
	if len(words) < 2 {
		return errors.New("want TOKEN RECIPIENT…")
	}
	return s.postfix.Send(ctx, words[0], words[1:]...)
}

// flush: everything in the queue is tried again, and steps speak of what happens from now on. What the last flush set
// in motion comes to its end first: its outcomes would be taken for those of this one.
func stepFlush(ctx context.Context, s *story, _ []string) error {
	if err := until(ctx, s.flushed); err != nil {
		return err
	}
	attempts := s.attempts()
	clear(s.held)
	for token, list := range attempts {
		// What has arrived already, by a try of Postfix's own, may still be spoken of.
		for s.seen[token] < len(list) && list[s.seen[token]].Status == "deferred" {
			s.seen[token]++
		}
		if list[len(list)-1].Status == "deferred" {
			s.held[token] = len(list)
		}
	}
	return s.postfix.Flush(ctx)
}

// flushed tells whether all that was held at the last flush has been tried since, and is back in the queue.
func (s *story) flushed() error {
	if s.postfix.Busy() {
		return errors.New("a delivery does not come to its end")
	}
	attempts := s.attempts()
	for token, before := range s.held {
		if len(attempts[token]) <= before {
			return fmt.Errorf("%s has not been tried since the last flush", token)
		}
	}
	return nil
}

// attempts groups the deliveries so far by message.
func (s *story) attempts() map[string][]lab.Delivery {
	attempts := make(map[string][]lab.Delivery)
	for _, d := range s.postfix.Log.Deliveries() {
		attempts[d.ID] = append(attempts[d.ID], d)
	}
	return attempts
}

// next waits for the next delivery attempt of a message that no step has spoken of.
func (s *story) next(ctx context.Context, token string) (lab.Delivery, error) {
	var found lab.Delivery
	err := until(ctx, func() error {
		all := s.attempts()[token]
		if len(all) <= s.seen[token] {
			return fmt.Errorf("no further attempt to deliver %s", token)
		}
		found = all[s.seen[token]]
		return nil
	})
	if err == nil {
		s.seen[token]++
	}
	return found, err
}

// delivered TOKEN HOST LEVEL [sni=NAME] [tls=TEXT] [port=N] [version=TEXT]
func stepDelivered(ctx context.Context, s *story, words []string) error {
	words, options := splitOptions(words)
	if len(words) != 3 {
		return errors.New("want TOKEN HOST LEVEL [sni=NAME] [tls=TEXT] [port=N] [version=TEXT]")
	}
	token, host, level := words[0], words[1], words[2]
	d, err := s.next(ctx, token)
	if err != nil {
		return err
	}
	if d.Status != "sent" || d.Relay != host {
		return fmt.Errorf("not sent to %s: %s", host, d.Line)
	}
	copies := s.world.Received(token)
	copies = slices.DeleteFunc(copies, func(m lab.Message) bool { return !slices.Contains(m.To, d.Recipient) })
	if len(copies) != 1 {
		return fmt.Errorf("%d copies for %s at the sinks, want 1", len(copies), d.Recipient)
	}
	return errors.Join(checkLevel(level, d, copies[0]), checkOptions(options, d, copies[0], s.postfix.Version))
}

// checkLevel compares what the log says with what the sink saw: the log can say TLS when the bytes went in clear.
func checkLevel(level string, d lab.Delivery, m lab.Message) error {
	secured := level != "cleartext"
	if m.TLS != secured {
		return fmt.Errorf("want %s; the sink saw TLS: %v: %s", level, m.TLS, d.Line)
	}
	switch {
	case level == "encrypted" && d.Trust != "":
		return nil
	case !secured, strings.EqualFold(level, d.Trust):
		return nil
	default:
		return fmt.Errorf("want %s; the log says %q: %s", level, d.Trust, d.Line)
	}
}

func checkOptions(options map[string]string, d lab.Delivery, m lab.Message, version lab.Version) error {
	for name, want := range options {
		var got string
		switch name {
		case "sni":
			got = m.ServerName
		case "port":
			got = d.Port
		case "version":
			got = tls.VersionName(m.Version)
		case "tls":
			if logs, err := version.Satisfies(">=3.11"); err != nil || !logs {
				continue // older versions have no such field
			}
			got = d.TLS
		default:
			return fmt.Errorf("unknown option %q", name)
		}
		if got != want {
			return fmt.Errorf("%s is %q, want %q: %s", name, got, want, d.Line)
		}
	}
	return nil
}

// deferred TOKEN PATTERN: the next attempt is deferred for that reason, and no sink has the message.
func stepDeferred(ctx context.Context, s *story, words []string) error {
	return s.notDelivered(ctx, "deferred", words)
}

// bounced TOKEN PATTERN
func stepBounced(ctx context.Context, s *story, words []string) error {
	return s.notDelivered(ctx, "bounced", words)
}

func (s *story) notDelivered(ctx context.Context, status string, words []string) error {
	if len(words) != 2 {
		return errors.New("want TOKEN PATTERN")
	}
	pattern, err := regexp.Compile(words[1])
	if err != nil {
		return err
	}
	d, err := s.next(ctx, words[0])
	if err != nil {
		return err
	}
	if d.Status != status || !pattern.MatchString(d.Line) {
		return fmt.Errorf("not %s with %q: %s", status, words[1], d.Line)
	}
	for _, m := range s.world.Received(words[0]) {
		if slices.Contains(m.To, d.Recipient) {
			return fmt.Errorf("%s, but sink %s has it", status, m.Sink)
		}
	}
	return nil
}

// untouched ADDRESS: no client has connected to that sink.
func stepUntouched(_ context.Context, s *story, words []string) error {
	for _, word := range words {
		sink := s.world.Sinks[lab.SinkAddress(word)]
		if sink == nil {
			return fmt.Errorf("no sink %s", word)
		}
		if n := sink.Connections(); n > 0 {
			return fmt.Errorf("%d connections to %s", n, word)
		}
	}
	return nil
}

// log PATTERN: a line of Postfix's log matches, now or soon.
func stepLog(ctx context.Context, s *story, words []string) error {
	return s.grep(ctx, words, func() string { return strings.Join(s.postfix.Log.Lines(), "\n") })
}

// daemonlog PATTERN: the same for postseal's.
func stepDaemonLog(ctx context.Context, s *story, words []string) error {
	return s.grep(ctx, words, s.postseal.LogText)
}

func (s *story) grep(ctx context.Context, words []string, text func() string) error {
	if len(words) != 1 {
		return errors.New("want PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + words[0])
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		if !pattern.MatchString(text()) {
			return fmt.Errorf("no line matches %q", words[0])
		}
		return nil
	})
}

// answer KEY REPLY [map=NAME]: the socketmap's reply, which may take a few questions to come true.
func stepAnswer(ctx context.Context, s *story, words []string) error {
	mapName := "postseal"
	if last := len(words) - 1; last > 0 && strings.HasPrefix(words[last], "map=") {
		mapName, words = strings.TrimPrefix(words[last], "map="), words[:last]
	}
	if len(words) != 2 {
		return errors.New("want KEY PATTERN [map=NAME]")
	}
	pattern, err := regexp.Compile("^(?:" + words[1] + ")$")
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		reply, err := lab.Ask(s.world.Network, mapName, words[0])
		if err == nil && !pattern.MatchString(reply) {
			err = fmt.Errorf("%s %s is answered %q, want %q", mapName, words[0], reply, words[1])
		}
		return err
	})
}

// older TOKEN-AGE: waits until that long has passed since the story's last "send": Postfix falls back to cleartext only
// for a message that has waited for minimal_backoff_time.
func stepOlder(ctx context.Context, _ *story, words []string) error {
	if len(words) != 1 {
		return errors.New("want DURATION")
	}
	age, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(age):
		return nil
	}
}

// stream COUNT DOMAIN TOKEN: starts a stream of messages, or with "stream wait TOKEN" waits until all are delivered
// without one deferral.
func stepStream(ctx context.Context, s *story, words []string) error {
	if len(words) == 2 && words[0] == "wait" {
		return s.awaitStream(ctx, words[1])
	}
	if len(words) != 3 {
		return errors.New("want COUNT DOMAIN TOKEN, or wait TOKEN")
	}
	count, err := strconv.Atoi(words[0])
	if err != nil {
		return err
	}
	return s.startStream(words[2], words[1], count)
}
