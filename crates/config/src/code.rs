//! Names every kind of problem a configuration can have: stable codes, for people and programs.

/// How bad a problem is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; somebody should know.
    Warning,
}

impl Severity {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One table for the enum, its printed form, its severity and its meaning, so that none is forgotten.
macro_rules! codes {
    ($($variant:ident = $id:literal, $severity:ident, $meaning:literal;)+) => {
        /// What kind of problem it is. A code keeps its meaning for ever.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it is printed, `V0101`.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }

            /// Whether the file is refused for it.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

codes! {
    FileUnreadable = "V0001", Error, "The configuration file cannot be read.";
    FileTooLarge = "V0002", Error, "The configuration file is larger than 4 MiB.";
    FileNotText = "V0003", Error, "The configuration file is not UTF-8 text.";
    Syntax = "V0004", Error, "The text is not TOML.";

    UnknownKey = "V0101", Error, "There is no such key here.";
    NotInThisVersion = "V0102", Error, "The key or word is planned, but not in this version of Buoy.";
    MissingKey = "V0103", Error, "A key that must be there is not.";
    WrongType = "V0104", Error, "The value has another type than the key takes.";
    UnknownWord = "V0105", Error, "The key takes one of a few words, and this is none of them.";
    BadDuration = "V0106", Error, "A time span is not written as number and unit.";
    OutOfRange = "V0107", Error, "The value is smaller or larger than the key allows.";
    EmptyList = "V0108", Error, "A list that must name something is empty.";
    BadName = "V0109", Error, "A name is empty, too long, or has characters that names cannot have.";
    TooMany = "V0110", Error, "There is more of something than one cluster can hold.";

    BadPeer = "V0201", Error, "A peer is not an address that other hosts can reach.";
    DuplicatePeer = "V0202", Error, "Two peers are the same.";
    NameCollision = "V0203", Error, "Two names have the same 32-bit key on the wire.";
    LeaseTooShort = "V0204", Error, "The lease is too short for its heartbeat.";
    UnknownNode = "V0205", Error, "A node is named that is not among the peers.";
    ExclusivePair = "V0206", Warning, "Two votes and `exclusive`: when either host is lost, nobody owns the VIP.";
    LeaseMaxTooShort = "V0207", Error, "The longest lease is shorter than the lease.";
    FewerLegs = "V0208", Warning, "A peer has fewer addresses than the others.";
    LegFamily = "V0209", Error, "The n-th addresses of two peers are of different IP versions.";
    WitnessOwns = "V0210", Error, "A witness is named where only owners can be.";
    WitnessVotes = "V0211", Warning, "A witness is of no use here.";

    BadVip = "V0301", Error, "A VIP is not an address.";
    BadPrefix = "V0302", Error, "The prefix of a VIP is missing or impossible.";
    UnusableVip = "V0303", Error, "The address is of a kind that cannot be a VIP.";
    DuplicateVip = "V0304", Error, "An address is a VIP twice.";
    DuplicateName = "V0305", Error, "Two VIPs, pools or checks have the same name.";
    PreferNotInNodes = "V0306", Error, "A node is preferred that may not own the VIP.";
    VipIsPeer = "V0307", Error, "A VIP is the address of a peer.";
    LinkLocalVip = "V0308", Error, "A link-local VIP needs its interface named.";
    NoVip = "V0309", Warning, "The file has no VIP, so there is nothing to keep alive.";
    GroupDiffers = "V0310", Error, "VIPs of one group contradict each other.";
    LonelyLabel = "V0311", Warning, "A label that joins VIPs stands at one VIP only.";

    BadPort = "V0401", Error, "A service port is not number and protocol.";
    DuplicatePort = "V0402", Error, "A port is served twice on one VIP.";
    BadBackend = "V0403", Error, "A backend is not written as `[name] address:port [weight=N] [max=N] [id=HEX] [zone=NAME] [node=NAME] [backup]`.";
    DuplicateBackend = "V0404", Error, "A backend is listed twice in one service.";
    BackendIsVip = "V0405", Error, "A backend is the VIP itself.";
    FamilyMismatch = "V0406", Error, "The VIP and its backends are not of the same IP version, and the kernel does not translate.";
    NeedsProxy = "V0407", Error, "The setting exists in mode \"proxy\" only.";
    NeedsKernel = "V0408", Error, "The setting exists where packets are forwarded only: in modes \"kernel\" and \"xdp\".";
    NeedsTcp = "V0409", Error, "The setting exists for TCP only.";
    BadCheck = "V0410", Error, "A health check asks nothing, or more than one thing.";
    SlowCheck = "V0411", Warning, "A health check may take longer than the time between two of them.";
    NoTraffic = "V0412", Warning, "Every backend of a service has weight 0.";
    NeedsXdp = "V0413", Error, "The setting exists in mode \"xdp\" only.";
    NotInXdp = "V0414", Error, "The setting does not exist in mode \"xdp\".";
    PortKept = "V0415", Error, "A backend has another port than the service, and packets keep theirs.";
    NotOnSegment = "V0416", Error, "A backend is not in the VIP's subnet, and packets reach neighbours only.";
    BadSource = "V0417", Error, "A client's prefix in `allow` or `deny` is not one.";
    DuplicateSource = "V0418", Error, "A prefix is in `allow` and `deny`, or in one of them twice.";
    RangeRefused = "V0419", Error, "A range of ports cannot be forwarded this way.";
    RangesOverlap = "V0420", Error, "Two ranges of ports of one VIP overlap, and neither is within the other.";
    BackendShared = "V0421", Error, "A port of a backend belongs to two services with `forward = \"nat\"`.";
    CheckNeedsPort = "V0422", Error, "A service has all ports, and its check does not say which one to ask.";
    OfBackends = "V0423", Error, "A setting of backends, where `forward = \"local\"` has none.";
    NeedsTunnel = "V0424", Error, "The setting exists with `forward = \"tunnel\"` only.";
    BadGuePort = "V0425", Error, "The port behind `gue:` is not one.";
    BadSourceAddress = "V0428", Error, "What `source` lists is not an address, or is there twice.";
    SourceNotVip = "V0429", Error, "An address in `source` is not one of the VIP's group.";
    SourceVersion = "V0430", Error, "`source` has no address of a VIP's IP version.";
    NotInProxy = "V0431", Error, "The setting does not exist in mode \"proxy\".";
    NoPortLeft = "V0432", Error, "An address in place of clients has no port left.";
    NeedsAssignment = "V0434", Error, "A service needs a VIP on the interface, and `assign = false` does not put it there.";
    NothingForwarded = "V0435", Error, "A VIP is not put on the interface, and nothing is forwarded for it.";
    BadRate = "V0437", Error, "A limit of new connections is not written as `NUMBER/s [burst=N]`, or nobody could keep to it.";
    BadExpect = "V0450", Error, "What a check expects is not a status or a range of them.";
    BadHeader = "V0451", Error, "A header of a check cannot be sent.";
    BadPattern = "V0452", Error, "What a check looks for is not a text or a regular expression.";
    BadQuestion = "V0453", Error, "What a check asks cannot be sent.";
    CheckUser = "V0454", Error, "The user that runs the program of a check cannot be one.";
    WrongVia = "V0455", Error, "A check asks backends on a way that packets of the service do not take.";
    BadSocketPath = "V0460", Error, "The path of a socket is not absolute, or longer than the kernel takes.";
    BadMetricsAddress = "V0461", Error, "`metrics` is not an address and a port.";
    BadDiscovery = "V0470", Error, "What says where to look for backends cannot be looked at.";
    BadResolver = "V0471", Error, "A name server is not an address.";
    Contradiction = "V0480", Error, "Two settings of a service contradict each other.";
    NeedsOther = "V0481", Error, "A setting does nothing without another one that is not there.";
    NotInKernel = "V0482", Error, "The setting does not exist in mode \"kernel\".";
    QuorumUnmet = "V0483", Error, "A service asks for more backends than it has.";
    BadServerName = "V0484", Error, "A name in `sni` is not that of a server, or is there twice.";
    UnknownBackend = "V0485", Error, "`sni` names a backend that the service does not have.";
    BadLoad = "V0486", Error, "What `load` of a check says does not tell how loaded a backend is.";
    BadLocality = "V0487", Error, "`locality` cannot tell which backends are near.";
    LonelyZone = "V0488", Warning, "A backend is in a zone where no peer is.";
    IdleWeight = "V0489", Warning, "`balance = \"first\"` does not look at weights.";
    BadServerId = "V0490", Error, "What connection ids call a backend is not a name, or not one of its own.";
    NeedsUdp = "V0491", Error, "The setting exists for UDP only.";

    NotAMember = "V0501", Error, "This host is not among the peers.";
    TwoMembers = "V0502", Error, "This host is two peers at once.";
    AddressAbsent = "V0503", Error, "This host does not have the address of the node it is said to be.";
    NoSubnet = "V0504", Error, "No subnet of this host contains the VIP.";
    HostAddress = "V0505", Error, "The VIP is a permanent address of this host.";
    NoInterface = "V0506", Error, "This host has no interface of that name.";
    PrefixDiffers = "V0507", Warning, "The VIP's prefix is not that of the subnet it lies in.";
    OtherInterface = "V0508", Warning, "The VIP's subnet is on another interface than the one named.";
    LegAbsent = "V0509", Warning, "This host does not have one of its addresses.";
    SameLink = "V0510", Warning, "Two addresses of this host are on one interface: no second path.";
    NotHere = "V0511", Warning, "A check asks for an interface or a subnet that this host does not have.";
    BadApiAddress = "V0512", Error, "`listen` of `[api]` is not an address and a port.";
    ApiInTheClear = "V0513", Error, "The API would be served beyond this host without TLS.";
    ApiForAnyone = "V0514", Error, "`[api]` asks nobody who he is: it has neither `tokens` nor `client_ca`.";
    BadApiFile = "V0515", Error, "A file of `[api]` cannot be read, is not what it should be, or can be changed by others.";
    BadToken = "V0516", Error, "A line of the file of tokens is not one, or is there twice.";
    BadStore = "V0520", Error, "`store` is neither a word nor addresses of etcd, or does not fit to `etcd_tls`.";
    BadStoreFile = "V0521", Error, "A file of `etcd_tls` cannot be read, is not what it should be, or can be used by others.";

    UnknownPool = "V0560", Error, "A VIP asks for an address of a pool that is not there.";
    PoolExhausted = "V0561", Error, "A pool has no address left to give.";
    PoolsOverlap = "V0562", Error, "An address is in two pools, or twice in one, and VIPs may ask for it.";
    OutsidePool = "V0563", Error, "An address is not in the pool that it should be of.";
    NotToAsk = "V0564", Error, "A VIP asks a pool whose addresses are VIPs of their own.";
    AddressReserved = "V0565", Error, "An address is reserved for somebody else.";
    OfEachVip = "V0566", Error, "A setting of VIPs, in a pool that VIPs ask.";
    BadReservation = "V0567", Error, "A reservation is of no pool that VIPs ask, or is there twice.";
    SharedPort = "V0568", Error, "Two VIPs share an address, and both serve one of its ports.";

    BadSecret = "V0601", Error, "The secret is not given as `file:PATH`.";
    KeyUnreadable = "V0602", Error, "A key file cannot be read.";
    KeyOpen = "V0603", Error, "A key file can be read or written by users it should not be.";
    KeyGroup = "V0604", Warning, "A key file can be read by its group.";
    BadKey = "V0605", Error, "A key file does not hold one key of 64 hexadecimal digits.";
    SameKey = "V0606", Error, "Two key files hold the same key.";
    BadAuthority = "V0607", Error, "A `ca` file cannot be read or holds no certificate.";
    BadProgram = "V0608", Error, "The program of a check or a hook cannot be run, or every user can change it.";

    BadHook = "V0640", Error, "A hook tells nobody, or says twice or wrongly whom.";
    HookVip = "V0641", Error, "A hook asks for a VIP that is not there.";

    BadTraces = "V0650", Error, "`[traces]` does not say where spans can be sent, or whom to trust there.";

    DuplicateRouter = "V0700", Error, "Two VIPs have the same virtual router.";
    NotWithVrrp = "V0701", Error, "The setting belongs to the lease, and VRRP decides about this VIP.";
    VrrpVersion = "V0702", Error, "The version of VRRP does not have what is asked of it.";
    VrrpPeer = "V0703", Error, "A peer of VRRP cannot be one.";
    BadVrrpAuth = "V0704", Error, "What peers of VRRP prove themselves with cannot be used.";
    VrrpSource = "V0705", Error, "This host has no address that it could speak VRRP from.";
    VrrpAccept = "V0706", Error, "The owner of a VIP takes packets that `accept = false` drops.";
    VrrpVirtualMac = "V0707", Error, "A VIP that is on no interface cannot have a hardware address of its own.";
    VrrpAmongBuoys = "V0710", Warning, "Hosts that run Buoy share a VIP by VRRP, where the lease is safer and faster.";

    BadRoute = "V0720", Error, "An entry of `routes` is not a route, or is there twice.";
    BadRule = "V0721", Error, "An entry of `rules` is not a rule, or is there twice.";
}

impl Code {
    /// Whether it says that something is not there. In a file with a syntax error such a thing may
    /// stand in the part that could not be read.
    pub(crate) const fn is_about_absence(self) -> bool {
        matches!(
            self,
            Self::MissingKey
                | Self::EmptyList
                | Self::UnknownNode
                | Self::NotAMember
                | Self::NoVip
                | Self::LonelyLabel
                | Self::UnknownPool
                | Self::PoolExhausted
                | Self::BadReservation
                | Self::WitnessVotes
        )
    }
}
