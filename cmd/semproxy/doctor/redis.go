package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Redis is the shared store.
type Redis struct {
	Addrs       []string
	Cluster     bool
	Master      string
	Prefix      string
	Credentials func() (username, password string, err error) // nil: none
	TLS         func() (*tls.Config, error)                   // nil: none
	Required    bool
}

// refusals are Redis' answers by their first word: what they mean, and what repairs them.
var refusals = map[string][2]string{
	"NOAUTH":      {"the server wants a password and was given none", "set store.redis.passwordFile"},
	"WRONGPASS":   {"the server refuses the password, or the user", "check store.redis.passwordFile and usernameFile"},
	"NOPERM":      {"the user may not do that", "give the Redis user the permissions of docs/reference/store.md (ACL SETUSER ... +@read +@write +@scripting ~semproxy:*)"},
	"OOM":         {"the server is full (maxmemory): every new page is refused", "raise maxmemory, lower the tenants' storedBytes, or remove what else is there"},
	"MISCONF":     {"the server cannot save to its disk and refuses to write", "repair its disk; INFO persistence has the cause"},
	"READONLY":    {"the server is a replica and refuses to write", "give store.redis.addrs the master, or sentinels and store.redis.master"},
	"LOADING":     {"the server is still loading its data", "wait"},
	"MASTERDOWN":  {"the replica has lost its master", "repair the replication"},
	"CLUSTERDOWN": {"the cluster does not serve all slots", "repair the cluster: redis-cli --cluster check"},
	"MOVED":       {"the server is a node of a cluster", "set store.redis.cluster: true"},
	"CROSSSLOT":   {"the server is a node of a cluster", "set store.redis.cluster: true"},
}

// Redis logs in as the sidecar does, writes, runs a script, and looks at the server's memory.
func (r *Report) Redis(ctx context.Context, c Redis) {
	o := &goredis.UniversalOptions{
		Addrs: c.Addrs, MasterName: c.Master, IsClusterMode: c.Cluster || len(c.Addrs) > 1 && c.Master == "", ClientName: "semproxy-doctor", DisableIdentity: true,
		DialTimeout: 3 * time.Second, ReadTimeout: 3 * time.Second, WriteTimeout: 3 * time.Second, DialerRetries: 1, MaxRetries: -1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if c.Credentials != nil {
		user, password, err := c.Credentials()
		if err != nil {
			r.Fail("redis.login", err.Error(), "check store.redis.passwordFile and usernameFile")
			return
		}
		o.Username, o.Password = user, password
	}
	if c.TLS != nil {
		cfg, err := c.TLS()
		if err != nil {
			r.Fail("redis.tls", err.Error(), "check the files of store.redis.tls")
			return
		}
		o.TLSConfig = cfg
	}
	goredis.SetLogger(silent{})
	client := goredis.NewUniversalClient(o)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	start := time.Now()
	if err := client.Ping(ctx).Err(); err != nil {
		r.redisError("redis.connect", c, err)
		return
	}
	r.OK("redis.connect", fmt.Sprintf("%s answers in %s", strings.Join(c.Addrs, ", "), time.Since(start).Round(10*time.Microsecond)))
	key := c.Prefix + "doctor:{" + strconv.FormatInt(time.Now().UnixNano(), 36) + "}"
	if err := client.Set(ctx, key, "a line that the doctor wrote", 10*time.Second).Err(); err != nil {
		r.redisError("redis.write", c, err)
	} else {
		_ = client.Del(ctx, key).Err()
		r.OK("redis.write", "it takes what is written")
	}
	if err := client.Eval(ctx, "return redis.call('EXISTS', KEYS[1])", []string{key}).Err(); err != nil {
		r.redisError("redis.scripts", c, err)
	} else {
		r.OK("redis.scripts", "scripts run")
	}
	if now, err := client.Time(ctx).Result(); err == nil {
		r.Clock("redis", now)
	}
	r.memory(ctx, client)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func (r *Report) redisError(check string, c Redis, err error) {
	word, _, _ := strings.Cut(err.Error(), " ")
	what, remedy := err.Error(), "see the server's log"
	if known, ok := refusals[strings.Trim(word, "-:")]; ok {
		what, remedy = known[0]+" ("+err.Error()+")", known[1]
	} else if w, m, ok := Network(strings.Join(c.Addrs, ", "), err); ok {
		what, remedy = w, m+" (store.redis.addrs)"
	}
	if c.Required || check == "redis.tls" {
		r.Fail(check, what, remedy)
		return
	}
	r.Warn(check, what+"; store.redis.required is false, so pages are kept in memory alone", remedy)
}

// memory warns where the server would evict, or is nearly full.
func (r *Report) memory(ctx context.Context, client goredis.UniversalClient) {
	text, err := client.Info(ctx, "memory").Result()
	if err != nil {
		return
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[k] = v
		}
	}
	used, _ := strconv.ParseInt(info["used_memory"], 10, 64)
	most, _ := strconv.ParseInt(info["maxmemory"], 10, 64)
	switch policy := info["maxmemory_policy"]; {
	case most == 0:
		r.Warn("redis.memory", "maxmemory is not set: the server takes memory until the machine has none", "set maxmemory to what the server may use, and maxmemory-policy noeviction")
	case policy != "" && policy != "noeviction":
		r.Warn("redis.memory", "maxmemory-policy is "+policy+": the server drops objects that tenants have paid for, and quotas are counted wrongly until they are swept", "set maxmemory-policy noeviction; tenants' storedBytes bound what is kept")
	case used > most/10*9:
		r.Warn("redis.memory", fmt.Sprintf("%s of %s are used: soon every new page is refused", size(used), size(most)), "raise maxmemory or lower the tenants' storedBytes")
	default:
		r.OK("redis.memory", fmt.Sprintf("%s of %s, %s", size(used), size(most), policy))
	}
}

// skew is how far clocks may differ.
const skew = 5 * time.Second

// Clock compares another machine's time with this one's. Where they differ is said once.
func (r *Report) Clock(of string, theirs time.Time) {
	d := time.Since(theirs)
	if d.Abs() > skew {
		r.Warn("clock."+of, fmt.Sprintf("this machine's clock and that of %s differ by %s: tokens and objects expire at the wrong time", of, d.Round(time.Second)), "let both follow NTP")
		return
	}
	r.OK("clock."+of, "both clocks agree")
}
