package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/milter"
	"github.com/postseal/postseal/policy"
)

// milterSettings are the parts of the configuration that decide about messages.
func milterSettings(c *Config) milter.Settings {
	return milter.Settings{
		Senders: c.Senders.Policy, Egress: c.Senders.Egress,
		Action: c.Milter.Action, Actions: c.Milter.Actions, AddHeader: c.Milter.AddHeader,
		Breaker: c.Milter.Breaker, Monitor: c.Mode == policy.ModeMonitor,
	}
}

// milterDNS is the resolver in the milter's terms. What is no name in the DNS is
// absent; it was never asked for.
type milterDNS struct{ asker }

// asker is what the milter needs of a resolver.Resolver.
type asker interface {
	TXT(ctx context.Context, name string) (resolver.Answer[string], error)
	MX(ctx context.Context, name string) (resolver.Answer[resolver.MX], error)
	A(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	AAAA(ctx context.Context, name string) (resolver.Answer[netip.Addr], error)
	PTR(ctx context.Context, addr netip.Addr) (resolver.Answer[string], error)
}

// badNameLasts is how long it is remembered that a name cannot exist.
const badNameLasts = time.Hour

func (d milterDNS) TXT(ctx context.Context, name string) (milter.Records[string], error) {
	return records(d.asker.TXT(ctx, name))
}

func (d milterDNS) PTR(ctx context.Context, addr netip.Addr) (milter.Records[string], error) {
	return records(d.asker.PTR(ctx, addr))
}

func (d milterDNS) MX(ctx context.Context, name string) (milter.Records[milter.Exchanger], error) {
	found, err := records(d.asker.MX(ctx, name))
	r := milter.Records[milter.Exchanger]{NXDomain: found.NXDomain, TTL: found.TTL}
	for _, x := range found.Values {
		r.Values = append(r.Values, milter.Exchanger{Preference: x.Preference, Host: x.Host})
	}
	return r, err
}

func (d milterDNS) Addresses(ctx context.Context, name string) (milter.Records[netip.Addr], error) {
	var four, six milter.Records[netip.Addr]
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { four, err = records(d.asker.A(ctx, name)); return err })
	g.Go(func() (err error) { six, err = records(d.asker.AAAA(ctx, name)); return err })
	if err := g.Wait(); err != nil {
		return milter.Records[netip.Addr]{}, err
	}
	return milter.Records[netip.Addr]{
		Values: slices.Concat(four.Values, six.Values), NXDomain: four.NXDomain || six.NXDomain, TTL: min(four.TTL, six.TTL),
	}, nil
}

func records[T any](a resolver.Answer[T], err error) (milter.Records[T], error) {
	if errors.Is(err, resolver.ErrBadName) {
		return milter.Records[T]{NXDomain: true, TTL: badNameLasts}, nil
	}
	return milter.Records[T]{Values: a.Records, NXDomain: a.NXDomain, TTL: a.TTL}, err
}
