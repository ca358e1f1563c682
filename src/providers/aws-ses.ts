import { z } from "zod";
import { checkAwsSes } from "./checks/aws-ses.ts";
import { checkSmtp } from "./checks/smtp.ts";
import { host, port, region, secretLine, secretWord, word } from "./fields.ts";
import type { CredentialShape, Provider } from "./provider.ts";
import { numberAt, shape, textAt } from "./shape.ts";
import { fault } from "./structure.ts";

/** The port of message submission (RFC 6409 section 3.1), which SES serves with STARTTLS. */
const SUBMISSION_PORT = 587;

const keyShape = shape({
  schema: z
    .looseObject({
      access_key_id: word("Access key id", "Id of the access key of an AWS principal that may send mail"),
      secret_access_key: secretWord("Secret access key", "The secret of the access key"),
      region: region(),
      session_token: secretWord("Session token", "Session token of temporary credentials").optional(),
    })
    .meta({ title: "Amazon SES with an access key", description: "Access key of an AWS principal that may send mail" }),
  secret: (document) => ({
    $case: "awsSesApiKey",
    value: {
      accessKeyId: textAt(document, "access_key_id"),
      secretAccessKey: textAt(document, "secret_access_key"),
      region: textAt(document, "region"),
      sessionToken: textAt(document, "session_token"),
    },
  }),
});

const apiKey: CredentialShape = {
  ...keyShape,
  check(document, io) {
    const [accessKeyId, secretAccessKey] = [textAt(document, "access_key_id"), textAt(document, "secret_access_key")];
    return checkAwsSes({ accessKeyId, secretAccessKey, sessionToken: textAt(document, "session_token"), region: textAt(document, "region") }, io);
  },
};

/** SES's SMTP endpoint of a region; another partition's endpoint is given as `host`. */
const endpointOf = (name: string): string => `email-smtp.${name}.amazonaws.com`;

const smtpShape = shape({
  schema: z
    .looseObject({
      username: word("User name", "SMTP user name"),
      password: secretLine("Password", "SMTP password"),
      region: region().optional(),
      host: host("SMTP host").optional(),
      port: port(SUBMISSION_PORT).optional(),
    })
    .meta({
      title: "Amazon SES over SMTP",
      description: "SMTP credentials of Amazon SES; region or host says where to send",
      anyOf: [{ required: ["region"] }, { required: ["host"] }],
    }),
  check: (document) => (document["region"] ?? document["host"] ? [] : [fault("region", "missing", "Give region or host")]),
  secret: (document) => ({
    $case: "awsSesSmtp",
    value: {
      username: textAt(document, "username"),
      password: textAt(document, "password"),
      region: textAt(document, "region"),
      host: textAt(document, "host") || endpointOf(textAt(document, "region")),
      port: numberAt(document, "port", SUBMISSION_PORT),
    },
  }),
});

const userPassword: CredentialShape = {
  ...smtpShape,
  check(document, io) {
    const [username, password, written] = [textAt(document, "username"), textAt(document, "password"), textAt(document, "host")];
    const host = written || endpointOf(textAt(document, "region"));
    return checkSmtp({ host, port: numberAt(document, "port", SUBMISSION_PORT), username, password, hostOfRegion: written === "" }, io);
  },
};

/** Amazon Simple Email Service. */
export const awsSes: Provider = {
  provider: "aws_ses",
  displayName: "Amazon SES",
  description: "Mail sent through Amazon Simple Email Service",
  category: "messaging",
  types: { api_key: apiKey, user_password: userPassword },
};
