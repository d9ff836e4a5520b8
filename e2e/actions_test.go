//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/smtp"
	"strings"
	"time"

	"github.com/postseal/postseal/e2e/lab"
)

// submit TOKEN RECIPIENT…: by SMTP, as a mail program or another server sends it. The recipients go as they are written:
// with SMTPUTF8 a domain's U-labels stay what they are.
func stepSubmit(ctx context.Context, s *story, words []string) error {
	if len(words) < 2 {
		return errors.New("want TOKEN RECIPIENT…")
	}
	conn, err := s.world.Network.Dial("tcp", smtpdAddress)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	client, err := smtp.NewClient(conn, "sender.lab.test")
	if err != nil {
		return err
	}
	if err := client.Mail("s@lab.test"); err != nil { // with SMTPUTF8, where that is offered
		return err
	}
	for _, recipient := range words[1:] {
		if err := client.Rcpt(recipient); err != nil {
			return fmt.Errorf("RCPT TO %s: %w", recipient, err)
		}
	}
	data, err := client.Data()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(data, "From: <s@lab.test>\r\nMessage-ID: <%[1]s@lab.test>\r\nSubject: %[1]s\r\n\r\nhello\r\n", words[0])
	return errors.Join(err, data.Close(), client.Quit())
}

// dns servfail|bogus|silent|heal NAME TYPE · dns add RECORD · dns remove NAME TYPE · dns asked NAME TYPE: now or soon
func stepDNS(ctx context.Context, s *story, words []string) error {
	if len(words) < 2 {
		return errors.New("want servfail|bogus|silent|heal|add|remove|asked …")
	}
	a := s.world.Authority
	switch verb := words[0]; verb {
	case "add":
		return a.Add(strings.Join(words[1:], " "))
	case "asked":
		return until(ctx, func() error {
			n, err := a.Asked(words[1], words[len(words)-1])
			if err == nil && n == 0 {
				err = fmt.Errorf("nobody has asked for %s", strings.Join(words[1:], " "))
			}
			return err
		})
	case "remove", "heal", "servfail", "bogus", "silent":
		qtype := "ANY"
		if len(words) > 2 {
			qtype = words[2]
		}
		if verb == "remove" {
			return a.Remove(words[1], qtype)
		}
		if verb == "heal" {
			verb = ""
		}
		return a.SetFault(words[1], qtype, lab.Fault(verb))
	default:
		return fmt.Errorf("unknown action %q", verb)
	}
}

// resolver restart: with an empty cache · resolver plain: without validation · resolver stop
func stepResolver(ctx context.Context, s *story, words []string) error {
	if len(words) != 1 {
		return errors.New("want restart, plain or stop")
	}
	if err := s.world.Resolver.Stop(); err != nil || words[0] == "stop" {
		return err
	}
	return s.world.Resolver.Start(ctx, words[0] != "plain")
}

// policyhost DOMAIN [word…] [body=TEXT]: the site answers so from now on; the body stays unless one is given.
func stepPolicyHost(_ context.Context, s *story, words []string) error {
	if len(words) < 1 {
		return errors.New("want DOMAIN [word…]")
	}
	body := s.world.PolicyHost.Site(words[0]).Body
	rest := words[1:]
	if len(rest) > 0 && strings.Contains(rest[0], "\n") {
		body, rest = rest[0], rest[1:]
	}
	site, err := lab.ParseSite(body, rest)
	if err == nil {
		s.world.PolicyHost.Publish(words[0], site)
	}
	return err
}

// sink ADDRESS NAME [behaviour…]
func stepSink(_ context.Context, s *story, words []string) error {
	if len(words) < 2 {
		return errors.New("want ADDRESS NAME [behaviour…]")
	}
	behaviour, err := lab.ParseBehaviour(words[1:])
	if err != nil {
		return err
	}
	return s.world.Sink(lab.SinkAddress(words[0]), behaviour)
}

// postfix COMMAND …: reload, or any of Postfix's own commands, such as postconf -F smtp/unix/chroot=y
func stepPostfix(ctx context.Context, s *story, words []string) error {
	if len(words) == 0 {
		return errors.New("want a command")
	}
	if words[0] == "reload" {
		return s.postfix.Reload(ctx)
	}
	_, err := s.postfix.Run(ctx, "", words...)
	return err
}

// postseal start|stop|terminate|ended|kill|restart|hold|hang|resume · postseal configure TOML · postseal COMMAND …
func stepPostseal(ctx context.Context, s *story, words []string) error {
	if len(words) == 0 {
		return errors.New("want a command")
	}
	d := s.postseal
	switch words[0] {
	case "start":
		return d.Start(ctx)
	case "stop":
		return d.Stop()
	case "terminate":
		return d.Terminate()
	case "kill":
		return d.Kill()
	case "hang":
		return d.Hang(ctx)
	case "resume":
		return d.Resume()
	case "restart":
		return errors.Join(d.Stop(), d.Start(ctx))
	case "ended":
		return d.Ended(ctx)
	case "hold":
		return errors.Join(d.Stop(), d.HoldSocket(), d.Start(ctx))
	case "configure":
		return d.Configure(strings.Join(words[1:], " "))
	default:
		_, err := d.Run(ctx, words...)
		return err
	}
}

// streamInterval is between two messages of a stream.
const streamInterval = 50 * time.Millisecond

// stream is mail that flows while a story does other things.
type stream struct {
	count int
	ended chan error
}

func (s *story) startStream(token, domain string, count int) error {
	if s.streams == nil {
		s.streams = make(map[string]*stream)
	}
	if s.streams[token] != nil {
		return fmt.Errorf("stream %s flows already", token)
	}
	st := &stream{count: count, ended: make(chan error, 1)}
	s.streams[token] = st
	s.world.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stepDeadline)
		defer cancel()
		var err error
		for i := 0; i < count && err == nil; i++ {
			err = s.postfix.Send(ctx, fmt.Sprintf("%s-%d", token, i), fmt.Sprintf("u%d@%s", i, domain))
			time.Sleep(streamInterval)
		}
		st.ended <- err
	})
	return nil
}

func (s *story) awaitStream(ctx context.Context, token string) error {
	st := s.streams[token]
	if st == nil {
		return fmt.Errorf("no stream %s", token)
	}
	if err := <-st.ended; err != nil {
		return err
	}
	return until(ctx, func() error {
		sent := 0
		for _, d := range s.postfix.Log.Deliveries() {
			if !strings.HasPrefix(d.ID, token+"-") {
				continue
			}
			if d.Status != "sent" {
				return fmt.Errorf("one was not sent: %s", d.Line)
			}
			sent++
		}
		if sent < st.count {
			return fmt.Errorf("%d of %d sent", sent, st.count)
		}
		return nil
	})
}
