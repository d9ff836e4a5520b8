//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// crowd N DIALOGUE [via=[HOST:]PORT] [name=NAME]: N clients connect, and when all are greeted each holds the dialogue, in
// which %d is its number. With a name it goes on while other steps run, until "crowd wait NAME".
func stepCrowd(ctx context.Context, s *story, words []string) error {
	if len(words) == 2 && words[0] == "wait" {
		return s.awaitCrowd(ctx, words[1])
	}
	words, dialogue := splitText(words)
	words, options := splitOptions(words)
	name := options["name"]
	delete(options, "name")
	o := postOptions{via: smtpdAddress}
	if err := o.read(options); err != nil {
		return err
	}
	if len(words) != 1 || dialogue == "" {
		return errors.New("want N DIALOGUE [via=[HOST:]PORT] [name=NAME], or wait NAME")
	}
	count, err := strconv.Atoi(words[0])
	if err != nil {
		return err
	}
	if name == "" {
		return s.crowd(ctx, count, o.via, dialogue)
	}
	if s.crowds[name] != nil {
		return fmt.Errorf("there is a crowd %s", name)
	}
	ended := make(chan error, 1)
	s.crowds[name] = ended
	s.world.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stepDeadline)
		defer cancel()
		ended <- s.crowd(ctx, count, o.via, dialogue)
	})
	return nil
}

func (s *story) awaitCrowd(ctx context.Context, name string) error {
	select {
	case err := <-s.crowds[name]:
		return err
	case <-ctx.Done():
		return fmt.Errorf("crowd %s: %w", name, ctx.Err())
	}
}

func (s *story) crowd(ctx context.Context, count int, via, dialogue string) error {
	clients, errs := make([]*client, count), make([]error, count)
	each := func(do func(i int) error) error {
		var all sync.WaitGroup
		for i := range count {
			all.Go(func() { errs[i] = do(i) })
		}
		all.Wait()
		return errors.Join(errs...)
	}
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.conn.Close()
			}
		}
	}()
	err := each(func(i int) (err error) {
		clients[i], err = dialSMTP(ctx, s.world.Network, via)
		return err
	})
	if err != nil {
		return err
	}
	return each(func(i int) error { return clients[i].talk(strings.ReplaceAll(dialogue, "%d", strconv.Itoa(i))) })
}
