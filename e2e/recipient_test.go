//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// rcpt RECIPIENT PATTERN [sender=ADDRESS] [login=NAME] [client=ADDRESS] [via=[HOST:]PORT] [logs=PATTERN]: the reply to RCPT,
// now or soon, and with logs= a line of postseal's log besides. No message follows.
func stepRcpt(ctx context.Context, s *story, words []string) error {
	words, options := splitOptions(words)
	if len(words) != 2 {
		return errors.New("want RECIPIENT PATTERN [sender=ADDRESS] [login=NAME] [client=ADDRESS] [via=[HOST:]PORT] [logs=PATTERN]")
	}
	line, err := regexp.Compile("(?m)" + options["logs"])
	if err != nil {
		return err
	}
	delete(options, "logs")
	o := postOptions{sender: "s@lab.test", via: smtpdAddress}
	if err := o.read(options); err != nil {
		return err
	}
	want, err := regexp.Compile("^(?:" + words[1] + ")")
	if err != nil {
		return err
	}
	return every(ctx, askInterval, func() error {
		reply, err := s.askRcpt(o, words[0])
		if err == nil && !want.MatchString(reply) {
			err = fmt.Errorf("the reply is %q, want %q", reply, words[1])
		}
		if err == nil && !line.MatchString(s.postseal.LogText()) {
			err = fmt.Errorf("no line of postseal's log matches %q", line)
		}
		return err
	})
}

// askRcpt takes no deadline from its step: what is asked once more each time gets an answer each time.
func (s *story) askRcpt(o postOptions, recipient string) (reply string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepDeadline)
	defer cancel()
	c, err := dialSMTP(ctx, s.world.Network, o.via)
	if err != nil {
		return "", err
	}
	defer c.conn.Close()
	if err := errors.Join(c.hello(o.login, o.client), c.say("MAIL FROM:<"+o.sender+">", "250")); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c.conn, "RCPT TO:<%s>\r\n", recipient); err != nil {
		return "", err
	}
	if reply, err = c.reply(); err != nil {
		return "", err
	}
	return reply, c.say("QUIT", "221")
}

// says PATTERN COMMAND…: what a command of postseal prints matches, now or soon, whatever its exit code.
func stepSays(ctx context.Context, s *story, words []string) error {
	if len(words) < 2 {
		return errors.New("want PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + words[0])
	if err != nil {
		return err
	}
	return every(ctx, askInterval, func() error {
		out, _ := s.postseal.Run(context.WithoutCancel(ctx), words[1:]...)
		if !pattern.MatchString(out) {
			return fmt.Errorf("nothing there matches %q:\n%s", words[0], out)
		}
		return nil
	})
}
